"""`path/to/file.py:function`: data that a function of the user's returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...targets.errors import RecipeError, did_you_mean
from ..imports import load_function
from ..settings import DataSettings
from ..tasks import CLASSIFICATION, Task
from .answers import as_answers, as_texts, task_of, tokens_of
from .found import MEMORY_LIMIT_BYTES, Found, Request
from .resize import resize_batch, wanted_size
from .tensors import as_images, as_labels, found_in_memory

KEYS = ("train", "val", "test", "classes", "task", "vocabulary", "pad")
WANTED = 'a mapping with "train" and "test" (and "val", "classes" if there are any)'
PROBED = 8  # items read twice, to notice transforms that draw lots


def open_file(request: Request) -> Found:
    """Call the function and read what it returns.

    It returns a mapping with "train" and "test", and "val" and "classes" if there are any; each split is a
    pair (images, labels) of arrays or tensors, as `as_images` reads them, or a torch Dataset of (image,
    label). For other tasks than classification it says which: "task": "text", and for texts, which are numbers of
    tokens, "vocabulary" (how many there are) and "pad" (the one that fills up). A third part of each split, beside
    images and labels, is what teachers are shown in place of the images.
    """
    return read_mapping(request, load_function(request.name)(), source=request.name)


def read_mapping(request: Request, value: Any, *, source: str) -> Found:
    """The same for a mapping that is there already. source: how errors call it."""
    if not isinstance(value, Mapping):
        raise RecipeError(f"{source} returned a value of type {type(value).__name__}; wanted {WANTED}")
    unknown = [key for key in value if key not in KEYS]
    if unknown:
        raise RecipeError(f"{source} returned a key {unknown[0]!r}{did_you_mean(str(unknown[0]), KEYS)}")
    names = [name for name in ("train", "val", "test") if value.get(name) is not None]
    task = task_of(request.task, value.get("task"), source=source)
    if not names:
        raise RecipeError(f"{source} returned no {task.samples}; wanted {WANTED}")
    _refuse_idle_settings(request.settings, task)
    size, told = wanted_size(request.settings.size), {key: value[key] for key in ("vocabulary", "pad") if key in value}
    theirs, own = _for_teachers({name: value[name] for name in names}, source=source)
    pairs = {name: _pair(own[name], task, told, size=size, where=f"{source}, {name}") for name in names}
    tokens = None
    if task.takes == "tokens":
        tokens = tokens_of({name: texts for name, (texts, _) in pairs.items()}, told, source=source)
    return found_in_memory(request, pairs, classes=value.get("classes"), task=task, tokens=tokens, theirs=theirs)


def _for_teachers(splits: Mapping[str, Any], *, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What teachers are shown in place of the images, by split, and the splits without it.

    RecipeError: some splits have it and some have not.
    """
    triples = [name for name, value in splits.items() if isinstance(value, (tuple, list)) and len(value) == 3]
    if triples and len(triples) < len(splits):
        missing = next(name for name in splits if name not in triples)
        raise RecipeError(
            f"{source}: {triples[0]} has a third part, what teachers are shown, and {missing} has none. Give it to all."
        )
    theirs = {name: as_images(splits[name][2], where=f"{source}, {name}, for teachers") for name in triples}
    for name, images in theirs.items():
        if len(images) != len(splits[name][0]):
            raise RecipeError(f"{source}, {name}: {len(splits[name][0])} images and {len(images)} for teachers")
    return theirs, {name: value[:2] if name in triples else value for name, value in splits.items()}


def _refuse_idle_settings(settings: DataSettings, task: Task) -> None:
    """RecipeError: a setting that these data cannot follow, and would otherwise ignore."""
    if task.takes == "tokens":
        idle = [key for key in ("size", "mean", "std", "augment") if getattr(settings, key)]
        reason = "is for images, and these are texts"
    else:
        idle = ["size"] if settings.size and task.name == "segmentation" else []
        reason = "would resize the images and not their masks: do it in the data function"
    if idle:
        raise RecipeError(f"data.{idle[0]} {reason}")


def _pair(
    value: Any, task: Task, told: Mapping[str, Any], *, size: tuple[int, int] | None, where: str
) -> tuple[Tensor, Tensor]:
    if isinstance(value, (tuple, list)) and len(value) == 2:
        read = as_texts if task.takes == "tokens" else as_images
        inputs = read(value[0], where=where)
        return inputs, as_answers(value[1], inputs, task=task, pad=told.get("pad", 0), where=where)
    if task is not CLASSIFICATION:
        raise RecipeError(
            f"{where} is of type {type(value).__name__}; wanted a pair ({task.samples}, labels) of arrays"
        )
    if hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, (tuple, list, dict)):
        return read_items(value, size=size, where=where)
    raise RecipeError(
        f"{where} is of type {type(value).__name__}; wanted a pair (images, labels), or a Dataset of (image, label)"
    )


def read_items(items: Any, *, size: tuple[int, int] | None, where: str) -> tuple[Tensor, Tensor]:
    """Every (image, label) of a Dataset, read once: images are pictures, [H, W], [H, W, C] or [C, H, W].

    RecipeError: an item changes between two readings, because random transforms would be frozen here.
    """
    count = len(items)
    if not count:
        return torch.zeros(0, 1, 1, 1, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    first, _ = _item(items, 0, size=size, where=where)
    _refuse_huge(first.numel() * first.element_size() * count, where=where)
    images, labels = first.new_empty((count, *first.shape[1:])), []
    for place in range(count):  # by index: a Dataset need not end an iteration
        image, label = _item(items, place, size=size, where=where)
        if place < PROBED and not torch.equal(image, _item(items, place, size=size, where=where)[0]):
            raise RecipeError(
                f"{where}: item {place} is another image when it is read again. Leave random transforms out; "
                "data.augment varies the training images."
            )
        if (image.shape, image.dtype) != (first.shape, first.dtype):
            raise RecipeError(
                f"{where}: item 0 is {_describe(first)} and item {place} is {_describe(image)}. "
                "All must be alike: set data.size, or resize and convert them in the Dataset's transform."
            )
        images[place] = image[0]
        labels.append(label)
    return images, as_labels(np.asarray(labels), count=count, where=where)


def _item(items: Any, place: int, *, size: tuple[int, int] | None, where: str) -> tuple[Tensor, int]:
    """(1, channels, height, width) and the label."""
    item = items[place]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise RecipeError(f"{where}: item {place} is of type {type(item).__name__}; wanted (image, label)")
    image, label = item
    if hasattr(image, "convert") and hasattr(image, "mode"):  # a PIL picture
        image = np.array(image if image.mode in {"L", "RGB"} else image.convert("RGB"))
    batch = image.unsqueeze(0) if isinstance(image, Tensor) else np.asarray(image)[None]
    images = as_images(batch, where=f"{where}, item {place}")
    try:
        return images if size is None else resize_batch(images, size), int(label)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"{where}: the label of item {place} is {label!r}; wanted a class index, a whole number from 0"
        ) from error


def _describe(image: Tensor) -> str:
    sides = "x".join(str(side) for side in image.shape[1:])
    return f"{sides} {str(image.dtype).removeprefix('torch.')}"


def _refuse_huge(size_bytes: int, *, where: str) -> None:
    if size_bytes > MEMORY_LIMIT_BYTES:
        raise RecipeError(
            f"{where}: {size_bytes / 2**30:.1f} GiB of images, more than the "
            f"{MEMORY_LIMIT_BYTES / 2**30:.0f} GiB that are kept in memory. Write them as image files and "
            "use imagefolder:PATH, which decodes as it goes; or make them smaller with data.size."
        )
