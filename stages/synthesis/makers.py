"""Who makes batches of images that are kept: a generator, a change of pixels, or nothing but chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..progress import Progress
from .generating import ByGenerator
from .optimise import ByPixels
from .order import Order, mixed


class Maker(Protocol):
    """Makes one batch after the other; each depends on the seed, its number, and the networks alone."""

    made: int  # batches so far

    def make(self, *, epoch: float = 0.0) -> Tensor:
        """The next batch, (batch, channels, height, width), 0 to 1. epoch: of the student's training, for ramps."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next batch depends on besides the networks."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


def maker_for(
    order: Order, *, teacher: nn.Module, student: nn.Module | None = None, progress: Progress | None = None
) -> Maker:
    """Who carries an order out. student: against whom images are made; None: from the teacher alone.

    Both networks are on the order's device, and stay as they are. progress: within a batch. StageError: the method
    needs what the teacher has not.
    """
    if order.method.play == "noise":
        return ByChance(order)
    if order.method.play == "pixels":
        return ByPixels(order, teacher=teacher, student=student, progress=progress)
    return ByGenerator(order, teacher=teacher, student=student)


class ByChance:
    """Normal noise with the mean and the spread of the data: the control."""

    def __init__(self, order: Order) -> None:
        self.order, self.made = order, 0

    def make(self, *, epoch: float = 0.0) -> Tensor:
        dice = torch.Generator().manual_seed(mixed(self.order.seed, self.made))
        self.made += 1
        taken = self.order.preprocessing
        mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (taken.mean, taken.std))
        return (mean + std * torch.randn(self.order.batch, *self.order.shape, generator=dice)).clamp(0, 1)

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.made = int(state["made"])
