"""Short measurements of small engines, for the tests of measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepress.targets.measure import Engine, Figures, Measurement, measure
from edgepress.targets.runtimes import target

Images = NDArray[np.float32]

NEEDS_ONNXRUNTIME = [
    pytest.mark.device,
    pytest.mark.skipif(bool(target("onnxruntime").unavailable()), reason=str(target("onnxruntime").unavailable())),
]


def engine(name: str, path: Path, **settings: str) -> Engine:
    return Engine(**{"name": name, "path": path, "runtime": "onnxruntime", "precision": "fp32", **settings})


def quick(engines: list[Engine], images: Images, **settings: object) -> Measurement:
    """The pinned run alone, short."""
    defaults: dict[str, object] = {
        "seconds": 0.05,
        "all_cores": False,
        "memory": False,
        "timeout_seconds": 60.0,
        "energy": False,
    }
    return measure(engines, inputs={"test": images}, **{**defaults, **settings})  # type: ignore[arg-type]


def is_whole(figures: Figures) -> bool:
    return figures.failed is None and figures.latency is not None and figures.outputs is not None
