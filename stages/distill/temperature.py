"""Imitation with logits on another scale than one fixed temperature: standardised, or a temperature that is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .nouns import Step
from .response import (
    Imitation,
    Kind,
    KnowledgeDistillation,
    above_zero,
    answers,
    average,
    deviation,
    divergence,
    each_divergence,
)

SMALL = 1e-7  # keeps a row of equal logits from dividing by 0
COLUMN_EPS = 1e-5  # as in LumiNet's reference code


class NormKD(Imitation):
    """mean_b (tau sd_t)^2 KL(softmax(z_t / (tau sd_t)) || softmax(z_s / (tau sd_s))), sd = deviation of each row.

    Chi et al., 2023 (arXiv:2308.00520): a temperature for each sample. tau 2, with ce 0.1 and weight 0.9, as in the
    authors' code.
    """

    def __init__(self, *, tau: float = 2.0) -> None:
        super().__init__()
        above_zero(tau=tau)
        self.tau = tau

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        mine, theirs = (self.tau * deviation(said) + SMALL for said in (student, teacher))
        each = each_divergence(student / mine, teacher / theirs, temperature=1.0)
        return average(each * theirs.squeeze(-1).square())


class LogitStandardisation(KnowledgeDistillation):
    """T^2 KL of softmax(z / T) with z = (logits - mean) / (deviation + 1e-7) of each row, for teacher and student.

    Sun et al., 2024 (arXiv:2403.01427): the student need not match the size of the teacher's logits, so an affine
    change of either changes nothing. T 2, with weight 9 and ce 0.1, as in the authors' code: write `lskd: 9`.
    """

    def __init__(
        self, *, temperature: float = 2.0, kind: Kind = "forward", classes: Sequence[int] | None = None
    ) -> None:
        super().__init__(temperature=temperature, kind=kind, classes=classes, standardise=True)


class LumiNet(Imitation):
    """alpha^2 KL(softmax(h_t / T) || softmax(h_s / T)), h = each class's logits standardised over the batch.

    Hossain et al., 2023 (arXiv:2310.03669). h = (z - mean) / sqrt(variance + 1e-5) down the batch, so batches should be
    large. The defaults alpha 33 and T 4, with ce 2 and `ramp: 20`, are those of the authors' code; there is no T^2.
    """

    def __init__(self, *, alpha: float = 33.0, temperature: float = 4.0) -> None:
        super().__init__()
        above_zero(alpha=alpha, temperature=temperature)
        self.alpha, self.temperature = alpha, temperature

    def forward(self, step: Step) -> Tensor:
        student, teacher = (_down_the_batch(said) for said in answers(step))
        return (self.alpha / self.temperature) ** 2 * divergence(student, teacher, temperature=self.temperature)


def _down_the_batch(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + COLUMN_EPS).sqrt()


class CurriculumTemperature(Imitation):
    """kd whose temperature T = 1 + 20 sigmoid(theta) is learned to make the loss larger, more so from epoch to epoch.

    CTKD: Li et al., 2023 (arXiv:2211.16231), with one temperature for all samples. theta starts at 1 and receives its
    gradient times -lambda, where lambda rises as a cosine from 0 to 1 in the first `epochs` epochs, as in the authors'
    code. An optimiser that divides by the size of the gradient, as AdamW does, sees only its sign.
    """

    def __init__(self, *, lowest: float = 1.0, span: float = 20.0, epochs: float = 10.0) -> None:
        super().__init__()
        above_zero(lowest=lowest, span=span, epochs=epochs)
        self.lowest, self.span, self.epochs = lowest, span, epochs
        self.theta = nn.Parameter(torch.ones(1))

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        return divergence(student, teacher, temperature=self.temperature(step.epoch))

    def temperature(self, epoch: float) -> Tensor:
        """The temperature of now, with the gradient that its adversary wants."""
        strength = (1 - math.cos(math.pi * min(1.0, epoch / self.epochs))) / 2
        fixed = self.theta.detach()
        return self.lowest + self.span * torch.sigmoid(fixed + strength * (fixed - self.theta))
