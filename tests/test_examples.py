"""The examples work as a user would run them, on small data of the same kind."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepress.pipeline import listing

EXAMPLES = Path(__file__).parent.parent / "examples"
RECIPES = sorted(EXAMPLES.glob("*.yaml"))
SHORT = [
    *(f"--set={stage}.epochs=1" for stage in ("train", "distill", "prune", "quantize")),
    *("--set", "profile.seconds=1", "--set", "profile.memory=false", "--set", "profile.all_cores=false"),
]


@pytest.mark.parametrize("path", RECIPES, ids=[path.name for path in RECIPES])
def test_every_example_recipe_is_a_good_one(path: Path) -> None:
    assert listing.check_one(path) == "recipe"


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + values.astype(np.uint8).tobytes())


def run(folder: Path, *words: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "edgepress", *words, *SHORT, "--out", "out", "--json", "--quiet"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr  # a few steps of training may miss the budget
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_the_mnist_recipe_runs_on_idx_files(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", 400), ("t10k", 100)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", generator.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    report = run(tmp_path, str(EXAMPLES / "mnist.yaml"), "--data", f"mnist:{tmp_path}")
    names = [variant["name"] for variant in report["variants"]]  # type: ignore[attr-defined]
    assert [name for name in names if not name.endswith("-bf16")] == [
        "baseline",
        "distilled",
        "distilled-int8",
        "pruned",
        "int8",
    ]


@pytest.mark.slow
def test_the_cifar_recipe_prunes_a_resnet_with_padded_shortcuts_from_a_folder_of_pictures(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name in "0123456789":
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    report = run(tmp_path, str(EXAMPLES / "cifar10.yaml"), "--data", f"imagefolder:{tmp_path / 'pictures'}")
    variants = {variant["name"]: variant for variant in report["variants"]}  # type: ignore[attr-defined]
    assert variants["pruned"]["macs"] < 0.8 * variants["baseline"]["macs"]


@pytest.mark.slow
def test_a_model_file_and_a_data_function_run_from_the_command_line(tmp_path: Path) -> None:
    for name in ("my_model.py", "my_data.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    report = run(
        tmp_path, "--model", "my_model.py:resnet20", "--set", "model.arguments={num_classes: 4}",
        "--data", "my_data.py:shapes", "--set", "train.lr=0.01",
    )  # fmt: skip
    assert report["data"]["source"] == "my_data.py:shapes"  # type: ignore[index]
