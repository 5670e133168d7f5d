"""IDX files are read without torchvision, packed or not, and damaged ones are refused."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepress.stages.data import Data, open_data
from edgepress.stages.datasets.mnist import FILES
from edgepress.stages.settings import DataSettings
from edgepress.targets.errors import RecipeError


def idx(values: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def scans(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(count).integers(0, 256, (count, 5, 4), dtype=np.uint8)


def written(folder: Path, *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 30), ("test", 20)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, values in zip(FILES[split], (scans(count), labels), strict=True):
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    return folder


def opened(source: str, **settings: Any) -> Data:
    return open_data(DataSettings(source=source, **settings), seed=0, cache=Path("unused"), given_weights=True)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inside", ["", "raw", "MNIST/raw"])
def test_files_are_found_and_read(tmp_path: Path, packed: bool, inside: str) -> None:
    written(tmp_path / inside, packed=packed)
    data = opened(f"mnist:{tmp_path}")
    assert data.train is not None
    images, labels, _ = data.train.__getitems__([0, 29])
    assert np.array_equal(images[:, 0].numpy(), scans(30)[[0, 29]])
    assert labels.tolist() == [0, 9]
    assert (len(data.val), len(data.test)) == (4, 16)
    assert data.preprocessing.mean == (0.1307,)


def test_torchvision_s_folders_are_read_without_torchvision(tmp_path: Path) -> None:
    written(tmp_path / "FashionMNIST" / "raw", packed=True)
    data = opened("torchvision:FashionMNIST", root=str(tmp_path))
    assert data.classes[9] == "Ankle boot"
    assert data.preprocessing.mean == (0.286,)


def test_scans_can_be_resized(tmp_path: Path) -> None:
    assert opened(f"mnist:{written(tmp_path)}", size=8).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda raw: b"\x00\x00\x09" + raw[3:], "it starts with 00000903, not as an IDX file of 3 axes"),
        (lambda raw: raw[:-3], r"597 bytes of values where \[30, 5, 4\] needs 600"),
        (lambda raw: b"", "it starts with , not"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], words: str) -> None:
    path = written(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecipeError, match=rf"{path.name} is damaged: {words}"):
        opened(f"mnist:{tmp_path}")


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: b"<html>", lambda raw: raw[:30] + raw[34:]])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path, packed=True) / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecipeError, match=r"ubyte\.gz is damaged: .*Fetch it again"):
        opened(f"mnist:{tmp_path}")


def test_files_that_are_missing_are_listed(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone is no folder.*train-images-idx3-ubyte"):
        opened(f"mnist:{tmp_path / 'gone'}")
    (written(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(RecipeError, match=r"lacks the IDX files.*with or without \.gz"):
        opened(f"mnist:{tmp_path}")
