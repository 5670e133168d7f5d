"""Imitation through the teacher's own last blocks: features are good when the rest of the teacher can use them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ...targets.errors import StageError
from .adapters import adapter
from .nouns import Need, Step
from .response import Imitation, above_zero, answers, divergence, rows
from .watching import Place, logits_of


class BlockWise(Imitation):
    """sum_i [ T^2 KL(z_t || z_i) + T^2 KL(z_i || z_s) ], z_i = the teacher whose first i blocks are the student's.

    Yu et al., 2024 (arXiv:2411.01547), of which the abstract was read: the teacher's blocks are replaced one after
    another, and the networks in between are stepping stones from teacher to student. Ours: the student's feature goes
    through an adapter (the average over the teacher's height and width, a 1x1 convolution with batch norm where the
    width differs) and takes the place of the teacher's at each tap; the first divergence teaches the student's blocks
    and the adapters, the second only the student's answers. Every tap costs one more pass of the teacher.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "models"})
    place: ClassVar[str | None] = "@stages"

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.temperature = temperature

    def build(self, probe: Step) -> None:
        super().build(probe)
        for _, theirs in self.pairs:
            place = Place.of(theirs)
            if place.side != "out" or place.call:
                raise StageError(f"the loss blockwise replaces what a module says: {theirs} is no output to replace")
        self.adapters = nn.ModuleList(
            adapter(_laid(mine, theirs).shape[1:], theirs.shape[1:]) for mine, theirs in probe.pairs(self.pairs)
        )

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        network = step.models[next(iter(step.teachers))]
        x = step.batch.x if step.batch.teacher_x is None else step.batch.teacher_x
        value = student.new_zeros(())
        for fit, (_, tap), (mine, theirs) in zip(self.adapters, self.pairs, step.pairs(self.pairs), strict=True):
            said = continued(network, tap, fit(_laid(mine, theirs)), x)
            stone = rows(said, step.batch.mask)
            value = value + divergence(stone, teacher, temperature=self.temperature)
            value = value + divergence(student, stone.detach(), temperature=self.temperature)
        return value


def continued(network: nn.Module, tap: str, value: Tensor, x: Tensor) -> Tensor:
    """What a network answers when one of its modules says `value`; gradients reach that and none of its parameters."""

    def replace(_part: nn.Module, _given: Any, passed: Any) -> Any:
        mine = value.clone()  # an in-place activation behind the tap would write into the student's feature
        return (mine, *passed[1:]) if isinstance(passed, tuple) else mine

    handle = network.get_submodule(Place.of(tap).module).register_forward_hook(replace)
    try:
        said = functional_call(network, {name: one.detach() for name, one in network.named_parameters()}, (x,))
    finally:
        handle.remove()
    return logits_of(said).float()


def _laid(mine: Tensor, theirs: Tensor) -> Tensor:
    """The student's feature with the height and width of the teacher's; the cells of a smaller map are repeated."""
    if mine.ndim != 4 or theirs.ndim != 4 or mine.shape[2:] == theirs.shape[2:]:
        return mine
    return F.adaptive_avg_pool2d(mine, (theirs.shape[2], theirs.shape[3]))
