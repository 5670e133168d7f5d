"""Losses on features before their activation: on which side of 0 they are, and how far."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...targets.errors import StageError
from .adapters import channels, met
from .nouns import Step
from .pairing import Adapted


class ActivationBoundaries(Adapted):
    """mean(relu(m - F_s)^2 where F_t > 0, relu(m + F_s)^2 elsewhere), 2^-(L-1-l) for stage l of L; m is 1.

    Heo et al., 2019 (arXiv:1811.03233), AB. A phase before the usual training in the paper: here a ramp from 1 to 0.
    The authors' code sums over neurons and multiplies by 3/1000; this is a mean, so that its size does not depend on
    the network's. Default place: before activations.
    """

    place: ClassVar[str | None] = "@preact"

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def distance(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        side = torch.where(teacher > 0, -1.0, 1.0)
        return _fading(F.relu(self.margin + side * student).square().mean(), index, len(self.pairs))


class Overhaul(Adapted):
    """The sum of (F_s - max(F_t, m))^2 except where F_t <= 0 and F_s <= max(F_t, m); mean over the batch.

    Heo et al., 2019 (arXiv:1904.01866), OFD: `partial` distance on features before ReLU, 2^-(L-1-l) for stage l of L.
    m = E[F_t | F_t < 0] for each channel; the paper computes it from the batch norm before the ReLU, here it is
    measured on the batches seen so far, which holds after an addition too. Usual weight: 1e-3.
    """

    place: ClassVar[str | None] = "@preact"

    def build(self, probe: Step) -> None:
        super().build(probe)
        for index, (mine, theirs) in enumerate(probe.pairs(self.pairs)):
            if not (theirs < 0).any():
                raise StageError(
                    f"the teacher's features at {self.pairs[index][1]} are never negative: an activation has passed "
                    "over them. Tap what the activation is given, such as layer3.2.relu:in#1, or the norm before it."
                )
            _, wide = met(mine.shape[1:], theirs.shape[1:])
            self.register_buffer(f"sum_{index}", torch.zeros(wide))
            self.register_buffer(f"count_{index}", torch.zeros(wide))

    def distance(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        margin = self.margin(teacher, index)
        target = torch.maximum(teacher, margin)
        counts = (teacher > 0) | (student > target)
        value: Tensor = ((student - target).square() * counts).sum() / len(student)
        return _fading(value, index, len(self.pairs))

    def margin(self, teacher: Tensor, index: int) -> Tensor:
        """The mean of what is negative in each channel, over all batches up to this one; it learns from this one."""
        across = [1] * teacher.ndim
        across[1 + channels(teacher.shape[1:])] = -1
        others = [axis for axis, size in enumerate(across) if size == 1]
        total, count = self.get_buffer(f"sum_{index}"), self.get_buffer(f"count_{index}")
        if self.training:
            total += teacher.clamp(max=0).sum(dim=others)
            count += (teacher < 0).sum(dim=others)
        mean: Tensor = total / count.clamp(min=1)
        return mean.view(across)


def _fading(value: Tensor, index: int, stages: int) -> Tensor:
    """Half as much for each stage further from the end."""
    return value * math.pow(0.5, stages - 1 - index)
