"""Imitation region by region: the classifier applied to the cells of the last feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .decoupled import each_decoupled
from .nouns import Need, Step
from .response import Imitation, above_zero, each_divergence, one_of

Base = Literal["kd", "dkd"]


class ScaleDecoupled(Imitation):
    """mean over cells of w l(z_s of the cell, z_t of the cell), l = kd or dkd, w = 2 where a cell knows what the whole
    image does not or the other way round, 1 elsewhere.

    SDD: Wei et al., 2024 (arXiv:2403.13512). The last map is pooled into 1, 2 x 2 and 4 x 4 cells and each network's
    own classifier is applied to every cell; a cell and the image disagree when the teacher is right about the label
    from one of them only. scales, the weight of 2 (`complementary`), alpha, beta and T as in the authors' code for dkd;
    alpha and beta mean nothing for kd. Needs networks that pool their last map before a linear classifier.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels", "models"})
    place: ClassVar[str | None] = "@map"
    any_classes: ClassVar[bool | None] = False

    def __init__(
        self,
        *,
        scales: Sequence[int] = (1, 2, 4),
        base: Base = "dkd",
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        complementary: float = 2.0,
    ) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        one_of(base, get_args(Base), option="base")
        if not scales or min(scales) < 1:
            raise ValueError(f"scales is {list(scales)}; it lists numbers of cells along a side, such as 1, 2, 4")
        self.scales, self.base, self.alpha, self.beta = tuple(scales), base, alpha, beta
        self.temperature, self.complementary = temperature, complementary

    def build(self, probe: Step) -> None:
        super().build(probe)
        if probe.student.logits.ndim != 2:
            raise StageError("the loss sdd divides an image that has one label, not one at every position")
        for said in probe.pairs(self.pairs):
            for whose, features in zip(("student", "teacher"), said, strict=True):
                if features.ndim != 4 or min(features.shape[2:]) < max(self.scales):
                    raise StageError(
                        f"the loss sdd divides a map into {max(self.scales)} x {max(self.scales)} cells, and at its "
                        f"tap the {whose} has the shape {tuple(features.shape[1:])}: set scales, or tap a larger map"
                    )
        self._cells(probe)  # refuses networks whose classifier does not fit the map

    def forward(self, step: Step) -> Tensor:
        student, teacher = self._cells(step)
        target = step.labels().unsqueeze(1).expand(teacher.shape[:2])
        right = teacher.argmax(dim=-1) == target
        right_as_a_whole = (step.teacher().logits.argmax(dim=-1) == step.labels()).unsqueeze(1)
        weight = torch.where(right == right_as_a_whole, 1.0, self.complementary)
        return (weight * self._each(student, teacher, target)).mean()

    def _each(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        if self.base == "kd":
            return each_divergence(student, teacher, temperature=self.temperature)
        return each_decoupled(student, teacher, target, alpha=self.alpha, beta=self.beta, temperature=self.temperature)

    def _cells(self, step: Step) -> tuple[Tensor, Tensor]:
        """(batch, cells, classes) of both networks."""
        assert step.learner is not None
        mine, theirs = next(step.pairs(self.pairs))
        teacher = step.models[next(iter(step.teachers))]
        return (
            classified(mine, step.learner, step.student.logits, self.scales),
            classified(theirs, teacher, step.teacher().logits, self.scales),
        )


def classified(features: Tensor, network: nn.Module, logits: Tensor, scales: Sequence[int]) -> Tensor:
    """(batch, cells, classes): what the network's own classifier says of each cell of its map at each scale."""
    cells = [F.adaptive_avg_pool2d(features, scale).flatten(2) for scale in scales]
    said: Tensor = classifier(network, features.shape[1], logits.shape[-1])(torch.cat(cells, dim=2).transpose(1, 2))
    return said


def classifier(network: nn.Module, width: int, classes: int) -> nn.Linear:
    """The last linear layer, from the channels of a map to the classes. StageError: there is none of that size."""
    linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
    if linear and (linear[-1].in_features, linear[-1].out_features) == (width, classes):
        return linear[-1]
    last = f"its last one goes from {linear[-1].in_features} to {linear[-1].out_features}" if linear else "it has none"
    raise StageError(
        f"the loss sdd applies a network's classifier to cells of its last map: that takes a linear layer from {width} "
        f"channels to {classes} classes, and {last}"
    )
