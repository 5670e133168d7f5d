"""Decide what arrays from elsewhere mean: which axis holds the channels, what is black, what is a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...targets.errors import RecipeError
from ..splits import Split, in_memory, thin
from .found import Found, Request, class_names, digest_of
from .resize import resize_batch, wanted_size

USUAL_CHANNELS = (1, 3)


def as_images(value: Any, *, where: str) -> Tensor:
    """(n, channels, height, width), uint8 or float32 from 0 to 1, of an array or tensor.

    [N, H, W] is grey. Of four axes the one of size 1 or 3 holds the channels; where that says nothing, a
    torch tensor is read as [N, C, H, W] and a NumPy array as [N, H, W, C], as the two libraries have it.
    """
    is_torch = isinstance(value, Tensor)
    images = value.detach().cpu() if is_torch else _tensor(value, where=where)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.ndim != 4:
        raise RecipeError(
            f"{where}: images have shape {tuple(images.shape)}; wanted [N, H, W], [N, H, W, C] or [N, C, H, W]"
        )
    elif _channels_last(images.shape, is_torch=is_torch, where=where):
        images = images.permute(0, 3, 1, 2)
    return _in_range(images, where=where).contiguous()


def as_labels(value: Any, *, count: int, where: str) -> Tensor:
    """Class indices, int64, (count,)."""
    labels = value.detach().cpu() if isinstance(value, Tensor) else _tensor(value, where=where)
    if count == len(labels) == 0:
        return torch.zeros(0, dtype=torch.int64)  # NumPy takes an empty list for floating point
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.ndim != 1:
        advice = " One-hot rows become indices with labels.argmax(1)." if labels.ndim == 2 else ""
        raise RecipeError(f"{where}: labels have shape {tuple(labels.shape)}; wanted one class index each.{advice}")
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise RecipeError(f"{where}: labels are {labels.dtype}; wanted class indices, whole numbers from 0")
    if len(labels) != count:
        raise RecipeError(f"{where}: {count} images and {len(labels)} labels")
    if count and int(labels.min()) < 0:
        raise RecipeError(f"{where}: a label is {int(labels.min())}; class indices start at 0")
    return labels.to(torch.int64)


def found_in_memory(
    request: Request,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    *,
    classes: Sequence[object] | None = None,
    notes: Sequence[str] = (),
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
) -> Found:
    """Thin, resize and check what `as_images` and `as_labels` made of each split."""
    empty = [name for name, (images, _) in pairs.items() if not len(images)]
    if empty:
        raise RecipeError(f"data.source {request.settings.source}: {' and '.join(empty)} holds no images")
    splits: dict[str, Split] = {}
    size = wanted_size(request.settings.size)
    for name, (images, labels) in pairs.items():
        kept = thin(labels, request.settings.limit, seed=request.seed)
        chosen = images if len(kept) == len(labels) else images[kept]
        splits[name] = in_memory(chosen if size is None else resize_batch(chosen, size), labels[kept])
    same_shape(splits, source=request.settings.source)
    names = checked_classes(splits, classes, source=request.settings.source)
    contents = [part for split in splits.values() for part in (split.pixels.read(split.rows), split.labels())]
    return Found(splits=splits, classes=names, digest=digest_of(contents), notes=tuple(notes), mean=mean, std=std)


def same_shape(splits: Mapping[str, Split], *, source: str) -> None:
    """RecipeError: the splits' images differ in shape."""
    shapes = {name: split.shape for name, split in splits.items()}
    if len(set(shapes.values())) > 1:
        words = ", ".join(f"{name} {channels}x{h}x{w}" for name, (channels, h, w) in shapes.items())
        raise RecipeError(
            f"data.source {source}: the splits' images differ in channels x height x width: {words}. "
            "Set data.size where only the size differs."
        )


def checked_classes(splits: Mapping[str, Split], classes: Sequence[object] | None, *, source: str) -> tuple[str, ...]:
    """The classes' names. RecipeError: there are more labels than names, or fewer than two classes."""
    highest = max((int(split.labels().max()) for split in splits.values() if len(split)), default=-1)
    names = class_names(classes, highest)
    if highest >= len(names):
        raise RecipeError(
            f"data.source {source}: a label is {highest}, and there are names for {len(names)} classes (0 to "
            f"{len(names) - 1}). Give as many names as classes."
        )
    if len(names) < 2:
        raise RecipeError(
            f"data.source {source}: a classifier needs at least 2 classes; here: {', '.join(names) or 'none'}"
        )
    return names


def _tensor(value: Any, *, where: str) -> Tensor:
    try:
        array = np.ascontiguousarray(value)
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"{where}: {type(value).__name__} cannot be read as an array ({error}). Give NumPy arrays or torch tensors."
        ) from error


def _channels_last(shape: torch.Size, *, is_torch: bool, where: str) -> bool:
    first, last = shape[1] in USUAL_CHANNELS, shape[3] in USUAL_CHANNELS
    if first != last:
        return last
    if first or is_torch:
        return not is_torch
    raise RecipeError(
        f"{where}: of shape {tuple(shape)} no axis is 1 or 3 long, so which one holds the channels? "
        "Give a torch tensor, which is read as [N, C, H, W]."
    )


def _in_range(images: Tensor, *, where: str) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if not images.dtype.is_floating_point:
        raise RecipeError(f"{where}: images are {images.dtype}; wanted uint8 (0 to 255) or floating point (0 to 1)")
    if images.numel():
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):  # written so that NaN is refused too
            raise RecipeError(
                f"{where}: floating point images must be 0 to 1 and these are {low:.4g} to {high:.4g}. "
                "Leave normalisation to data.mean and data.std; give 0 to 255 as uint8."
            )
    return images.float()
