"""Images and labels that belong together, how they are divided fairly, and in which order they are shown."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, Tensor, Tensor]

MAX_WORKERS = 8  # decoding processes: more of them wait for the disk and for the network that trains


class Pixels(Protocol):
    """Where images, or texts, are read from. shape: (channels, height, width), or (length,), of every one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def is_in_memory(self) -> bool: ...

    def read(self, rows: Tensor) -> Tensor:
        """These rows: images of uint8 0 to 255 or floating point 0 to 1, texts of int64."""


class InMemory:
    """Decoded images, or texts, in one tensor."""

    is_in_memory = True

    def __init__(self, images: Tensor) -> None:
        self.images = images

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def read(self, rows: Tensor) -> Tensor:
        return self.images.index_select(0, rows)  # whole rows at once: ten times faster than [rows]


class Split(Dataset[Batch]):
    """Images of one size with their labels, handed out in whole batches: a loader costs next to nothing."""

    def __init__(
        self,
        pixels: Pixels,
        labels: Tensor,
        rows: Tensor | None = None,
        *,
        teacher_pixels: Pixels | None = None,
        is_labelled: bool = True,
    ) -> None:
        """labels: one for each of `rows`: class indices, or maps, rows of indices, or numbers, as the task has it.

        rows: which of the pixels; None: all, in order.
        teacher_pixels: what a teacher is shown in place of the pixels, row by row. is_labelled: False where the labels
        only fill the place.
        """
        self.pixels, self.teacher_pixels, self.is_labelled = pixels, teacher_pixels, is_labelled
        self.rows = torch.arange(len(labels)) if rows is None else rows
        self._labels = labels.float() if labels.dtype.is_floating_point else labels.to(torch.int64)
        assert len(self.rows) == len(self._labels), "one label for each row"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """(images, labels, indices); the indices count within this split, as a teacher's cache does."""
        places = torch.as_tensor(indices, dtype=torch.int64)
        return self.pixels.read(self.rows[places]), self._labels[places], places

    def labels(self) -> Tensor:
        """Class indices, int64, or numbers, float32, in the split's own order."""
        return self._labels

    def strata(self) -> Tensor:
        """What to divide by: the classes, where each sample has one; else all samples are of a kind. (n,)."""
        has_one = self._labels.ndim == 1 and not self._labels.dtype.is_floating_point
        return self._labels if has_one else torch.zeros(len(self), dtype=torch.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of images, (length,) of texts."""
        return self.pixels.shape

    def subset(self, places: Tensor) -> Split:
        """Some of these images, without a copy of their pixels."""
        return Split(
            self.pixels,
            self._labels[places],
            self.rows[places],
            teacher_pixels=self.teacher_pixels,
            is_labelled=self.is_labelled,
        )

    def read(self, places: Tensor) -> Tensor:
        """The images at these places of the split."""
        return self.pixels.read(self.rows[places])

    def for_teacher(self) -> Split:
        """The same samples as a teacher is shown them: another modality where there is one, else these images."""
        if self.teacher_pixels is None:
            return self
        return Split(self.teacher_pixels, self._labels, self.rows, is_labelled=self.is_labelled)


def in_memory(images: Tensor, labels: Tensor, *, for_teacher: Tensor | None = None) -> Split:
    """A split of decoded images: uint8 0 to 255 or floating point 0 to 1, (n, channels, height, width); or of texts.

    for_teacher: what a teacher is shown in their place.
    """
    return Split(InMemory(images), labels, teacher_pixels=None if for_teacher is None else InMemory(for_teacher))


def loader(
    split: Split,
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
    epoch: int,
    part: Callable[[Tensor], Tensor] = lambda places: places,
) -> DataLoader[Batch]:
    """Batches of (images, labels, indices), in an order that depends on the seed and the epoch alone.

    Shuffled batches are as equal in size as they can be: a last batch of one image would stop a batch norm.
    part: what is taken of each batch, where several processes divide it.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    count = len(split)
    if shuffle:
        parts = torch.randperm(count, generator=generator).tensor_split(max(1, math.ceil(count / batch_size)))
    else:
        parts = torch.split(torch.arange(count), batch_size)
    batches = [part(places).tolist() for places in parts if len(places)]
    return DataLoader(
        split,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=0 if split.pixels.is_in_memory else _workers(),
        generator=generator,  # else the loader draws its workers' seed from the global generator
    )


def divide(labels: Tensor, share: float, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places of a stratified `share` of the images and of the rest, each in ascending order.

    Each class gives its share to within one image. In total it is round(share * n), yet neither nothing nor all.
    """
    count = len(labels)
    wanted = min(max(1, round(share * count)), max(1, count - 1))
    classes, sizes = torch.unique(labels, return_counts=True)
    exact = sizes.double() * wanted / max(1, count)
    taken = exact.floor().to(torch.int64)
    # Largest remainders first; classes of equal remainder take their turn by lot.
    lots = torch.rand(len(classes), generator=generator, dtype=torch.float64) * 1e-6
    by_remainder = (exact - taken + lots).argsort(descending=True)
    taken[by_remainder[: wanted - int(taken.sum())]] += 1
    mask = torch.zeros(count, dtype=torch.bool)
    for label, number in zip(classes.tolist(), taken.tolist(), strict=True):
        members = (labels == label).nonzero().flatten()
        mask[members[torch.randperm(len(members), generator=generator)[:number]]] = True
    return mask.nonzero().flatten(), (~mask).nonzero().flatten()


def thin(labels: Tensor, limit: int | None, *, seed: int) -> Tensor:
    """Places of at most `limit` images, stratified."""
    if limit is None or len(labels) <= limit:
        return torch.arange(len(labels))
    chosen, _ = divide(labels, limit / len(labels), generator=torch.Generator().manual_seed(seed))
    return chosen


def _as_it_is(batch: Any) -> Any:
    return batch


def _workers() -> int:
    """Decoding processes, only where they are forked: a spawned one would run the user's script again."""
    return min(MAX_WORKERS, len(os.sched_getaffinity(0))) if sys.platform == "linux" else 0
