"""Which samples a training sees: images of a split in a new order each epoch, and second views of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ...targets.errors import StageError
from ..augment import augment, lots, whole_numbers
from ..contract import Preprocessing, Tokens
from ..crew import Crew
from ..paired import teachers_preprocessing
from ..splits import Split, loader
from ..tasks import IGNORED
from .nouns import Batch, Need, Player, Samples

PROBE = 4  # samples: enough for a batch norm and for classes to differ
CHANNELS_LAST = torch.channels_last  # a fifth faster in float32 on CPUs, half as fast again in bfloat16
ANOTHER = 50_000_017  # added to the turn for the second view: no epoch comes to it
Second = Literal["view", "classmate"]


class Loaded:
    """Batches of a split, in an order that depends on the seed and the epoch alone.

    Players of one round are shown the same batch. A split that carries a second input gives it to the teacher.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing | Tokens,
        *,
        batch_size: int,
        seed: int,
        crew: Crew,
        augmentation: tuple[str, ...] = (),
        variants: int | None = None,
        second: Second | None = None,
    ) -> None:
        """batch_size: of all processes together; each has its part.

        variants: how many fixed variations of each image there are, by turns of the epoch; None: no two are alike.
        second: what a batch has besides: another variation of its images, or another image of each one's class.
        """
        self.split, self.preprocessing = split, preprocessing
        self.teachers_preprocessing = teachers_preprocessing(split, preprocessing)
        self.batch_size, self.seed, self.crew = batch_size, seed, crew
        self.augmentation, self.second = augmentation, second
        self.variants = variants if augmentation else 1
        self._mates = Classmates(split.labels()) if second == "classmate" else None
        self._shown: set[str] = set()
        self._batch: Batch | None = None

    def begin(self, epoch: int) -> int:
        rounds, self._batches = self._open(epoch)
        self._epoch, self._batch = epoch, None
        return rounds

    def next(self, player: Player) -> Batch:
        if self._batch is None or player.name in self._shown:
            self._shown.clear()
            self._batch = self._prepared(*next(self._batches), epoch=self._epoch)
        self._shown.add(player.name)
        return self._batch

    def probe(self) -> Batch:
        few = torch.linspace(0, len(self.split) - 1, min(PROBE, len(self.split))).long()
        return self._prepared(*self.split.__getitems__(few.tolist()), epoch=0)

    def _open(self, epoch: int) -> tuple[int, Iterator[tuple[Tensor, Tensor, Tensor]]]:
        batches = loader(
            self.split, batch_size=self.batch_size, shuffle=True, seed=self.seed, epoch=epoch, part=self.crew.part
        )
        return len(batches), iter(batches)

    def _prepared(self, images: Tensor, labels: Tensor, index: Tensor, *, epoch: int) -> Batch:
        variant = None if self.variants is None else epoch % self.variants
        turn = epoch if variant is None else variant
        x = self._input(images, index, self.preprocessing, turn=turn)
        y = self._labels(labels, index, turn=turn) if self.split.is_labelled else None
        batch = Batch(x=x, y=y, index=index, mask=self._mask(x, y), variant=variant)
        if self.split.teacher_pixels is not None:
            theirs = self.split.for_teacher().read(index)
            batch = replace(batch, teacher_x=self._input(theirs, index, self.teachers_preprocessing, turn=turn))
        if self.second == "view":
            return replace(batch, view=self._input(images, index, self.preprocessing, turn=epoch + ANOTHER))
        if self._mates is not None:
            mates = self._mates.draw(labels, index, lots(index, seed=self.seed, turn=epoch + 2 * ANOTHER))
            images = self.split.read(mates)
            return replace(batch, view=self._input(images, mates, self.preprocessing, turn=epoch + ANOTHER))
        return batch

    def _input(self, images: Tensor, index: Tensor, preprocessing: Preprocessing | Tokens, *, turn: int) -> Tensor:
        images = images.to(self.crew.device)
        if self.augmentation:
            images = augment(images, self.augmentation, lots(index, seed=self.seed, turn=turn))
        x = preprocessing.normalize(images)
        return x.contiguous(memory_format=CHANNELS_LAST) if x.ndim == 4 else x

    def _labels(self, labels: Tensor, index: Tensor, *, turn: int) -> Tensor:
        """The same; a map of labels moves as its image does, and has none where the image moved in from outside."""
        labels = labels.to(self.crew.device)
        if labels.ndim != 3 or not self.augmentation:
            return labels
        shifted = (labels - IGNORED).unsqueeze(1)  # what is moved in is 0, and so becomes IGNORED
        return augment(shifted, self.augmentation, lots(index, seed=self.seed, turn=turn)).squeeze(1) + IGNORED

    def _mask(self, x: Tensor, y: Tensor | None) -> Tensor | None:
        """Which pixels or tokens count: those with a label, or of texts with one answer those that are no padding."""
        if y is not None and y.ndim > 1 and not y.dtype.is_floating_point:
            return y != IGNORED
        return x != self.preprocessing.pad if isinstance(self.preprocessing, Tokens) else None


class Classmates:
    """For each sample another one of its class, by lot; itself where it is alone."""

    def __init__(self, labels: Tensor) -> None:
        self.by_class = labels.argsort(stable=True)
        self.sizes = labels.bincount()
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.place = torch.empty_like(self.by_class)
        self.place[self.by_class] = torch.arange(len(labels))

    def draw(self, labels: Tensor, index: Tensor, lots: Tensor) -> Tensor:
        """Places in the split, (batch,)."""
        sizes, starts = self.sizes[labels], self.starts[labels]
        step = 1 + whole_numbers((sizes - 1).clamp(min=1), lots)
        return self.by_class[starts + (self.place[index] - starts + step) % sizes]


def second_of(needs: frozenset[Need], split: Split, augmentation: tuple[str, ...]) -> Second | None:
    """Which second input the losses ask for. StageError: they ask for two, or for one that cannot be made."""
    if {"view", "classmate"} <= needs:
        raise StageError("one loss looks at a second view and another at a classmate: keep one of the two")
    if "classmate" in needs:
        if not split.is_labelled or split.labels().ndim != 1 or split.labels().dtype.is_floating_point:
            raise StageError("a loss needs another image of the same class, and these have no class each")
        return "classmate"
    if "view" in needs:
        if not augmentation:
            raise StageError(
                "a loss compares two variations of an image, and nothing varies them: set data.augment, "
                "for example [flip, crop]"
            )
        return "view"
    return None


class Swapped:
    """The same samples for a player that takes what the teacher is given, and whose teacher takes what it is not."""

    def __init__(self, samples: Samples, names: frozenset[str]) -> None:
        self.samples, self.names = samples, names

    def begin(self, epoch: int) -> int:
        return self.samples.begin(epoch)

    def next(self, player: Player) -> Batch:
        batch = self.samples.next(player)
        return swapped(batch) if player.name in self.names else batch

    def probe(self) -> Batch:
        return self.samples.probe()


def swapped(batch: Batch) -> Batch:
    """What one modality is given for what the other is. StageError: there is only one."""
    if batch.teacher_x is None:
        raise StageError("peers are crossed over two kinds of samples, and these data have one: see data.source")
    return replace(batch, x=batch.teacher_x, teacher_x=batch.x)
