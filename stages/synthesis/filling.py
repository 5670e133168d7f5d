"""Fill a pool from the teacher alone: killed at any moment, it goes on with the images that are there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...targets.errors import RecipeError
from ..contract import Preprocessing
from ..progress import Progress
from ..tensors import CorruptStateError, load_state, save_state
from .makers import maker_for
from .order import Order
from .pool import MB, Pool
from .score import Score, examine

STATE = "maker.safetensors"  # in a pool's folder: how far its maker is
BETWEEN_SAVES = 10  # batches that only warm the maker up


@dataclass(kw_only=True)
class Filling:
    """A pool that is being filled. seconds: that making took, in this run and in those before it."""

    pool: Pool
    order: Order
    teacher: nn.Module
    progress: Progress
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.maker = maker_for(self.order, teacher=self.teacher, progress=_Within(self))
        self._wanted = self._told = 0
        state = _read(self.pool.folder / STATE)
        if state is None:
            self.pool.forget()
            return
        self.maker.load_state_dict(state["maker"])
        self.seconds = float(state["seconds"])
        if [shard.facts() for shard in self.pool.manifest.shards] == state["pool"]["shards"]:
            return
        with suppress(RecipeError):  # a shard was damaged, and that was told: others are made in its place
            self.pool.load_state_dict(state["pool"])

    def fill(self, wanted: int) -> Score:
        """Go on until there are so many images, or as many as the pool takes; how good they are."""
        each = torch.Size(self.order.shape).numel()
        self._wanted = min(wanted, max(1, self.order.settings.pool_mb * MB // each))
        while self.maker.made < self.order.method.warm_up:
            self._timed()
            if self.maker.made % BETWEEN_SAVES == 0:
                self.save()
            self._tell(self.maker.made / self.order.method.warm_up, "the generator warms up")
        while len(self.pool) < self._wanted:
            images = self._timed()[: self._wanted - len(self.pool)]
            labels, confidence = told(self.teacher, images, self.order.preprocessing, device=self.order.device)
            self.pool.add(images, labels, confidence=confidence)
            self.save()
            self._tell(len(self.pool) / self._wanted, f"{len(self.pool)} of {self._wanted} images made")
        return examine(self.pool.images(), self.teacher, self.order.preprocessing)

    def _timed(self) -> Tensor:
        started = time.perf_counter()
        images = self.maker.make()
        self.seconds += time.perf_counter() - started
        return images

    def save(self) -> None:
        """Write down how far it is."""
        state = {"maker": self.maker.state_dict(), "pool": self.pool.state_dict(), "seconds": self.seconds}
        save_state(state, self.pool.folder / STATE)

    def _tell(self, share: float, words: str) -> None:
        self.progress.update(share, words)

    def within(self, share: float) -> None:
        """A batch is so far."""
        done = len(self.pool) + share * min(self.order.batch, self._wanted - len(self.pool))
        self._tell(done / max(1, self._wanted), f"{len(self.pool)} of {self._wanted} images made")


class _Within:
    """Progress of one batch as that of the whole pool."""

    def __init__(self, filling: Filling) -> None:
        self._filling = filling

    def update(self, share: float, text: str) -> None:
        self._filling.within(share)


def state_beside(folder: Path) -> Mapping[str, Any] | None:
    """The state of who filled the pool in this folder; None: nobody knows."""
    state = _read(folder / STATE)
    return None if state is None else state["maker"]


@torch.no_grad()
def told(
    teacher: nn.Module, images: Tensor, preprocessing: Preprocessing, *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The class that the teacher answers to each image, and the probability that it gives it; on the CPU."""
    answers: Tensor = teacher(preprocessing.normalize(images.to(device)))
    confidence, labels = answers.float().softmax(dim=1).max(dim=1)
    return labels.cpu(), confidence.cpu()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = load_state(path)
    except CorruptStateError:
        return None
    return state
