"""Decide what the labels of each task mean: indices, maps of indices, rows of yes and no, numbers. And texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...targets.errors import RecipeError, did_you_mean
from ..contract import Tokens
from ..tasks import IGNORED, TASKS, Task
from .tensors import as_array, as_labels

VOID = 255  # of a mask of bytes, which cannot hold -100: nobody labelled the pixel (PASCAL VOC, Cityscapes)


def task_of(wanted: str | None, told: Any, *, source: str) -> Task:
    """The task that the recipe wants, or the data tell, or classification. RecipeError: they disagree."""
    if told is not None and told not in TASKS:
        raise RecipeError(f"{source}: no task is called {told!r}{did_you_mean(str(told), TASKS)}")
    if told is not None and wanted is not None and told != wanted:
        raise RecipeError(f"{source}: these data are for {told}, and the recipe says task: {wanted}")
    return TASKS[wanted or told or "classification"]


def as_texts(value: Any, *, where: str) -> Tensor:
    """(n, length), int64, of an array or tensor of whole numbers."""
    texts = as_array(value, where=where)
    if texts.ndim != 2 or texts.dtype.is_floating_point or texts.dtype == torch.bool:
        raise RecipeError(
            f"{where}: texts are {tuple(texts.shape)} of {texts.dtype}; wanted numbers of tokens, [N, length], whole "
            "and padded to one length"
        )
    if texts.numel() and int(texts.min()) < 0:
        raise RecipeError(f"{where}: a token is {int(texts.min())}; their numbers start at 0")
    return texts.to(torch.int64)


def tokens_of(texts: Mapping[str, Tensor], told: Mapping[str, Any], *, source: str) -> Tokens:
    """Length, vocabulary and padding of texts. told: `vocabulary` and `pad`, where the data say them."""
    lengths = {name: part.shape[1] for name, part in texts.items()}
    if len(set(lengths.values())) > 1:
        raise RecipeError(f"{source}: the splits' texts differ in length: {lengths}. Pad all of them to one length.")
    highest = max(int(part.max()) for part in texts.values() if part.numel())
    vocabulary, pad = told.get("vocabulary", highest + 1), told.get("pad", 0)
    for key, number in (("vocabulary", vocabulary), ("pad", pad)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise RecipeError(f"{source}: {key} is {number!r}; wanted a whole number")
    if highest >= vocabulary:
        raise RecipeError(
            f"{source}: a token is {highest}, and the vocabulary has {vocabulary} (0 to {vocabulary - 1})"
        )
    if not 0 <= pad < vocabulary:
        raise RecipeError(f"{source}: pad is {pad}, which is no token of a vocabulary of {vocabulary}")
    return Tokens(length=next(iter(lengths.values())), vocabulary=vocabulary, pad=pad)


def as_answers(value: Any, inputs: Tensor, *, task: Task, pad: int = 0, where: str) -> Tensor:
    """The labels of these images or texts in the form that the task's losses and figures take."""
    if task.has_one_class_each:
        return as_labels(value, count=len(inputs), where=where)
    labels = as_array(value, where=where)
    if len(labels) != len(inputs):
        raise RecipeError(f"{where}: {len(inputs)} {task.samples} and {len(labels)} labels")
    if task.name == "multilabel":
        return _yes_or_no(labels, where=where)
    if task.name == "regression":
        return _numbers(labels, where=where)
    if task.name == "segmentation":
        return _map(labels, inputs.shape[2:], where=where)
    return _indices(labels, inputs.shape[1:], where=where).masked_fill(inputs == pad, IGNORED)


def _yes_or_no(labels: Tensor, *, where: str) -> Tensor:
    if labels.ndim != 2 or not bool(((labels == 0) | (labels == 1)).all()):
        raise RecipeError(f"{where}: labels are {tuple(labels.shape)}; wanted [N, labels] of 0 and 1, one column each")
    return labels.float()


def _numbers(labels: Tensor, *, where: str) -> Tensor:
    wide = labels.unsqueeze(1) if labels.ndim == 1 else labels
    if wide.ndim != 2 or not bool(wide.float().isfinite().all()):
        raise RecipeError(f"{where}: labels are {tuple(labels.shape)}; wanted [N] or [N, quantities], all finite")
    return wide.float()


def _map(labels: Tensor, size: torch.Size, *, where: str) -> Tensor:
    flat = labels.squeeze(1) if labels.ndim == 4 and labels.shape[1] == 1 else labels
    is_byte = flat.dtype == torch.uint8
    indices = flat.to(torch.int64).masked_fill(flat == VOID, IGNORED) if is_byte else flat
    return _indices(indices, size, where=where)


def _indices(labels: Tensor, size: torch.Size, *, where: str) -> Tensor:
    """Class indices at every place of a sample."""
    if tuple(labels.shape[1:]) != tuple(size):
        raise RecipeError(
            f"{where}: the labels of a sample are {tuple(labels.shape[1:])} and the sample is {tuple(size)}: "
            "every place needs a class index"
        )
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise RecipeError(
            f"{where}: labels are {labels.dtype}; wanted class indices, and {IGNORED} where there is none"
        )
    whole = labels.to(torch.int64)
    wrong = whole[(whole < 0) & (whole != IGNORED)]
    if len(wrong):
        raise RecipeError(f"{where}: a label is {int(wrong[0])}; class indices start at 0, {IGNORED} means none")
    return whole
