"""`torchvision:NAME`: a data set that torchvision knows."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor

from ...targets.errors import RecipeError, did_you_mean
from ..imports import import_for
from .arrays import read_items
from .found import Found, Request
from .mnist import MNIST_MEAN, MNIST_STD, find_idx, found_idx
from .resize import wanted_size
from .tensors import as_images, as_labels, found_in_memory

# Sets in MNIST's own file format: torchvision is not needed to read them.
IDX_CLASSES = {
    "MNIST": tuple("0123456789"),
    "FashionMNIST": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot",
    ),
    "KMNIST": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}  # fmt: skip
# Mean and std of the training images, in units of 0 to 1, as training scripts for these sets have them.
IDX_MOMENTS = {
    "MNIST": (MNIST_MEAN, MNIST_STD),
    "FashionMNIST": (0.2860, 0.3530),
    "KMNIST": (0.1918, 0.3483),
}


def open_torchvision(request: Request) -> Found:
    """RecipeError: no such set, or it is not there. RuntimeMissingError: no torchvision."""
    settings, name = request.settings, request.name
    if settings.root is None:
        raise RecipeError(f"data.source {settings.source} needs data.root: the folder that holds it, or will")
    root = Path(settings.root).expanduser()
    folder = find_idx(root, names=(name, name.lower())) if name in IDX_CLASSES else None
    if folder is not None:
        return found_idx(request, folder, classes=IDX_CLASSES[name], moments=IDX_MOMENTS[name])
    datasets = import_for(settings.source, "torchvision").datasets
    factory = getattr(datasets, name, None)
    if not isinstance(factory, type):
        raise RecipeError(f"torchvision has no data set {name!r}{did_you_mean(name, datasets.__all__)}")
    sets = _splits(factory, root, download=settings.download, source=settings.source)
    size = wanted_size(settings.size)
    pairs = {split: _pair(items, size=size, where=f"{settings.source}, {split}") for split, items in sets.items()}
    return found_in_memory(request, pairs, classes=getattr(sets["train"], "classes", None))


def _splits(factory: Any, root: Path, *, download: bool, source: str) -> dict[str, Any]:
    """Each split that the set has. torchvision spells it `train=True` or `split="train"`."""
    accepted = inspect.signature(factory).parameters
    common = {"download": download} if "download" in accepted else {}
    if "train" in accepted:
        spelled: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
    elif "split" in accepted:
        spelled = {name: {"split": name} for name in ("train", "val", "test")}
    else:
        raise RecipeError(
            f"{source} is not divided by torchvision into train and test. Load it in a function of your own "
            "and write data.source: path/to/file.py:function"
        )
    sets: dict[str, Any] = {}
    for split, arguments in spelled.items():
        try:
            sets[split] = factory(str(root), **arguments, **common)
        except ValueError:  # torchvision's answer to a split that this set does not have
            continue
        except (RuntimeError, OSError) as error:
            advice = "" if download else " Set data.download: true to fetch it, or correct data.root."
            raise RecipeError(f"{source}: {split} cannot be read from {root}: {error}.{advice}") from error
    if "train" not in sets or len(sets) < 2:
        raise RecipeError(
            f"{source} has no train and test split of the usual names. Load it in a function of your own and "
            "write data.source: path/to/file.py:function"
        )
    return sets


def _pair(items: Any, *, size: tuple[int, int] | None, where: str) -> tuple[Tensor, Tensor]:
    """The whole arrays where the set keeps them, as MNIST, CIFAR and SVHN do; else item by item."""
    images = getattr(items, "data", None)
    labels = getattr(items, "targets", getattr(items, "labels", None))
    if images is not None and labels is not None and getattr(images, "ndim", 0) in {3, 4}:
        pixels = as_images(images, where=where)
        return pixels, as_labels(labels, count=len(pixels), where=where)
    return read_items(items, size=size, where=where)
