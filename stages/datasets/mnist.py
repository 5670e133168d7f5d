"""`mnist:PATH`: the IDX files of MNIST and its relatives, packed or not, read without torchvision."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...targets.errors import RecipeError
from .found import Found, Request
from .tensors import as_images, as_labels, found_in_memory

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
UNSIGNED_BYTE = 8  # the third byte of the format's magic number; the fourth is the number of axes
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081  # of the 60 000 training images, in units of 0 to 1


def open_mnist(request: Request) -> Found:
    """The folder of the four files, or one that has them under MNIST/raw or raw."""
    root = Path(request.name).expanduser()
    folder = find_idx(root, names=("MNIST", "mnist"))
    if folder is None:
        state = "is no folder" if not root.is_dir() else "lacks the IDX files"
        files = ", ".join(name for pair in FILES.values() for name in pair)
        raise RecipeError(
            f"data.source {request.settings.source}: {root} {state}. Wanted there, or under MNIST/raw, each "
            f"with or without .gz: {files}"
        )
    return found_idx(request, folder)


def find_idx(root: Path, *, names: Sequence[str]) -> Path | None:
    """The first folder at or under `root` that holds all four files."""
    places = [root, root / "raw", *(root / name / "raw" for name in names)]
    wanted = [name for pair in FILES.values() for name in pair]
    return next((place for place in places if all(_file(place, name) for name in wanted)), None)


def found_idx(
    request: Request,
    folder: Path,
    *,
    classes: Sequence[str] | None = None,
    moments: tuple[float, float] = (MNIST_MEAN, MNIST_STD),
) -> Found:
    """Read the four files of a folder that has them. moments: the usual mean and std."""
    pairs = {}
    for split, (images_name, labels_name) in FILES.items():
        images = as_images(_read(folder, images_name, axes=3), where=f"{folder}, {split}")
        labels = as_labels(_read(folder, labels_name, axes=1), count=len(images), where=f"{folder}, {split}")
        pairs[split] = (images, labels)
    return found_in_memory(request, pairs, classes=classes, mean=moments[:1], std=moments[1:])


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, name: str, *, axes: int) -> Tensor:
    path = _file(folder, name)
    assert path is not None, "find_idx has seen it"
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        return _parse(content, axes=axes)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise RecipeError(f"{path} is damaged: {error}. Fetch it again.") from error


def _parse(content: bytes, *, axes: int) -> Tensor:
    """Two zero bytes, type, number of axes; each axis' length as a big-endian uint32; then the values."""
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, axes]):
        raise ValueError(f"it starts with {content[:4].hex()}, not as an IDX file of {axes} axes")
    start = 4 + 4 * axes
    shape = [int(length) for length in np.frombuffer(content[4:start], dtype=">u4")]
    if len(content) - start != int(np.prod(shape)):
        raise ValueError(f"{len(content) - start} bytes of values where {shape} needs {int(np.prod(shape))}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)
