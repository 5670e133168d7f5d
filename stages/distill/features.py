"""Losses that bring features themselves together: hints, channel means, and features as random variables."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapters import channels, met, pointwise, pooled
from .nouns import Need, Step, Term
from .pairing import Adapted, OverPairs
from .response import each_divergence


class Hint(Adapted):
    """mean((a(F_s) - F_t)^2), a being a 1x1 convolution with batch norm where the widths differ, or a linear layer.

    Romero et al., 2014 (arXiv:1412.6550), FitNets. They train up to the hint first and go on with KD; here the hint
    may fade with a ramp. Usual weight: 100. Default place: the last stage but one, the middle of a small network.
    """

    place: ClassVar[str | None] = "@stages#-2"

    def distance(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        return F.mse_loss(student, teacher)


class ChannelDistillation(Term):
    """mean((a(GAP(F_s)) - GAP(F_t))^2), GAP being the mean over positions, summed over stages.

    Zhou et al., 2020 (arXiv:2006.01683). Usual weight: 6, beside `gkd`, both fading over training (ramp). Where widths
    differ, a is a linear layer: our choice.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@stages"

    def build(self, probe: Step) -> None:
        widths = [(pooled(mine).shape[1], pooled(theirs).shape[1]) for mine, theirs in probe.pairs(self.pairs)]
        self.adapters = nn.ModuleList(nn.Identity() if a == b else nn.Linear(a, b) for a, b in widths)

    def forward(self, step: Step) -> Tensor:
        values = [
            F.mse_loss(widen(pooled(mine)), pooled(theirs.detach()))
            for widen, (mine, theirs) in zip(self.adapters, step.pairs(self.pairs), strict=True)
        ]
        return torch.stack(values).sum()


class GuidedDistillation(Term):
    """T^2 KL(p_t || p_s) over the samples that the teacher gets right; the others count 0 in the mean over the batch.

    Zhou et al., 2020 (arXiv:2006.01683), GKD. T is 1 on ImageNet.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels"})

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, step: Step) -> Tensor:
        teacher = step.teacher().logits.detach()
        right = teacher.argmax(dim=1) == step.labels()
        return (each_divergence(step.student.logits, teacher, temperature=self.temperature) * right).mean()


class VariationalInformation(OverPairs):
    """mean(((m(F_s) - F_t)^2 / v + log v) / 2), m a small network and v a variance of its own for each channel.

    Ahn et al., 2019 (arXiv:1904.05835), VID: a bound on the mutual information. v = softplus(raw) + 1e-5 begins at
    `variance`; m is three 1x1 convolutions with ReLU between them. It may be negative. Usual weight: 1.
    """

    def __init__(self, *, variance: float = 5.0) -> None:
        super().__init__()
        if variance <= 1e-4:
            raise ValueError("variance is a positive number, 5 in the paper")
        self.variance = variance

    def build(self, probe: Step) -> None:
        self.means, self.raw = nn.ModuleList(), nn.ParameterList()
        for mine, theirs in probe.pairs(self.pairs):
            shape, wide = met(mine.shape[1:], theirs.shape[1:])
            middle = (wide, *shape[1:]) if len(shape) == 3 else (*shape[:-1], wide)
            steps = (pointwise(shape, wide, bias=False), pointwise(middle, wide, bias=False))
            last = pointwise(middle, wide, bias=False)
            self.means.append(nn.Sequential(steps[0], nn.ReLU(), steps[1], nn.ReLU(), last))
            self.raw.append(nn.Parameter(torch.full((wide,), math.log(math.expm1(self.variance - 1e-5)))))

    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        variance = F.softplus(self.raw[index]) + 1e-5
        across = [1] * teacher.ndim
        across[1 + channels(teacher.shape[1:])] = -1
        variance = variance.view(across)
        apart: Tensor = self.means[index](student) - teacher
        return (apart.square() / variance + variance.log()).mean() / 2
