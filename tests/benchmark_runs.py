"""What the tests of benchmarks share: to run one in this process, and data of a few pictures for it."""

from __future__ import annotations

import importlib
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def module(name: str) -> Any:
    """A benchmark as a module; they import each other by file name, as scripts do."""
    return importlib.import_module(name)


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """The command, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    module(name).main()


def write_digits(place: Path) -> Path:
    """Ten kinds of pictures in MNIST's format: a bright row tells the class."""
    for split, count, seed in (("train", 300, 0), ("t10k", 100, 1)):
        images = np.random.default_rng(seed).integers(0, 60, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6] += 180
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (place / f"{split}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return place
