"""Decide what arrays from elsewhere mean: which axis holds the channels, what is black, what is a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...targets.errors import RecipeError
from ..contract import Tokens
from ..splits import Split, in_memory, thin
from ..tasks import CLASSIFICATION, Task
from .found import Found, Request, class_names, digest_of
from .resize import resize_batch, wanted_size

USUAL_CHANNELS = (1, 3)


def as_images(value: Any, *, where: str) -> Tensor:
    """(n, channels, height, width), uint8 or float32 from 0 to 1, of an array or tensor.

    [N, H, W] is grey. Of four axes the one of size 1 or 3 holds the channels; where that says nothing, a
    torch tensor is read as [N, C, H, W] and a NumPy array as [N, H, W, C], as the two libraries have it.
    """
    is_torch = isinstance(value, Tensor)
    images = as_array(value, where=where)
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
    labels = as_array(value, where=where)
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


def as_array(value: Any, *, where: str) -> Tensor:
    """A tensor on the CPU. RecipeError: it is no array."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    try:
        return torch.from_numpy(np.ascontiguousarray(value))
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"{where}: {type(value).__name__} cannot be read as an array ({error}). Give NumPy arrays or torch tensors."
        ) from error


def found_in_memory(
    request: Request,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    *,
    classes: Sequence[object] | None = None,
    notes: Sequence[str] = (),
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    task: Task = CLASSIFICATION,
    tokens: Tokens | None = None,
    theirs: Mapping[str, Tensor] | None = None,
) -> Found:
    """Thin, resize and check what was made of each split: images or texts, and labels as the task has them.

    classes: names of what the labels count. theirs: images that teachers are shown instead, in a size of their own.
    """
    source = request.settings.source
    empty = [name for name, (images, _) in pairs.items() if not len(images)]
    if empty:
        raise RecipeError(f"data.source {source}: {' and '.join(empty)} holds no {task.samples}")
    splits: dict[str, Split] = {}
    size = wanted_size(request.settings.size)
    for name, (images, labels) in pairs.items():
        whole = in_memory(images, labels)
        kept = thin(whole.strata(), request.settings.limit, seed=request.seed)
        chosen = images if len(kept) == len(labels) else images[kept]
        splits[name] = in_memory(
            chosen if size is None else resize_batch(chosen, size),
            labels[kept],
            for_teacher=theirs[name][kept] if theirs else None,
        )
    same_shape(splits, source=source)
    same_shape({name: split.for_teacher() for name, split in splits.items()}, source=f"{source}, for teachers")
    if task.has_one_class_each:
        names = checked_classes(splits, classes, source=source)
    else:
        names = answer_names(task, [split.labels() for split in splits.values()], classes, source=source)
    contents = [part for split in splits.values() for part in (split.pixels.read(split.rows), split.labels())]
    if theirs:
        contents += [split.for_teacher().pixels.read(split.rows) for split in splits.values()]
    return Found(
        splits=splits, classes=names, digest=digest_of(contents), notes=tuple(notes), mean=mean, std=std, task=task,
        tokens=tokens,
    )  # fmt: skip


def same_shape(splits: Mapping[str, Split], *, source: str) -> None:
    """RecipeError: the splits' images differ in shape."""
    shapes = {name: split.shape for name, split in splits.items()}
    if len(set(shapes.values())) > 1:
        words = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
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


def answer_names(
    task: Task, labels: Sequence[Tensor], names: Sequence[object] | None, *, source: str
) -> tuple[str, ...]:
    """What the answers of any other task are called. RecipeError: names and answers do not go together."""
    in_columns = task.name in ("multilabel", "regression")
    if in_columns:
        widths = {part.shape[1] for part in labels}
        if len(widths) > 1:
            raise RecipeError(f"data.source {source}: the splits have {sorted(widths)} numbers for each sample")
        count = widths.pop()
    else:
        count = max((int(part.max()) for part in labels if part.numel()), default=-1) + 1
    found = class_names(names, count - 1)
    if len(found) < count or (in_columns and len(found) != count):
        raise RecipeError(f"data.source {source}: there are {count} classes and {len(found)} names: {', '.join(found)}")
    if len(found) < (1 if in_columns else 2):
        raise RecipeError(
            f"data.source {source}: {task.name} needs 2 classes or more; here: {', '.join(found) or 'none'}"
        )
    return found


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
