"""What a batch of answers says about classes and samples together: correlations along rows and along columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .nouns import Step
from .response import Imitation, above_zero, answers, divergence

EPS = 1e-8


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """(rows,): the correlation of each row of one with the same row of the other; 0 where a row does not vary."""
    one, other = (value - value.mean(dim=-1, keepdim=True) for value in (one, other))
    lengths: Tensor = one.norm(dim=-1) * other.norm(dim=-1)
    return (one * other).sum(dim=-1) / (lengths + EPS)


class DIST(Imitation):
    """T^2 [ beta (1 - mean_b r(p_s[b], p_t[b])) + gamma (1 - mean_c r(p_s[:, c], p_t[:, c])) ], r = Pearson.

    Huang et al., 2022 (arXiv:2205.10536): p = softmax(z / T), compared along each sample's classes and along each
    class's samples, so a student whose beliefs are an affine function of the teacher's is as good as one that copies.
    beta and gamma of 1, with ce 1, are those of the authors' segmentation code, which has no temperature; T is that of
    kd here.
    """

    def __init__(self, *, beta: float = 1.0, gamma: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def forward(self, step: Step) -> Tensor:
        student, teacher = ((said / self.temperature).softmax(dim=-1) for said in answers(step))
        if not len(student):
            return student.sum()
        across = 1 - pearson(student, teacher).mean()
        down = 1 - pearson(student.T, teacher.T).mean()
        return self.temperature**2 * (self.beta * across + self.gamma * down)


class ClassAware(Imitation):
    """instance KL along rows + classes KL along columns + correlation mean (R_s - R_t)^2, R = C x C of the columns.

    CLKD: Zhang et al., 2022 (arXiv:2211.14773), of which the abstract was read: it names distillation at the level of
    instances and of classes, and a class correlation loss. Ours are the form of each (a divergence with T^2 over each
    sample's classes, the same over each class's samples, and the mean square of the difference of the Pearson
    correlations between classes) and the weights of 1.
    """

    def __init__(
        self, *, instance: float = 1.0, classes: float = 1.0, correlation: float = 1.0, temperature: float = 4.0
    ) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.instance, self.classes, self.correlation = instance, classes, correlation
        self.temperature = temperature

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        if not len(student):
            return student.sum()
        across = divergence(student, teacher, temperature=self.temperature)
        down = divergence(student.T, teacher.T, temperature=self.temperature)
        apart = (_between_columns(student) - _between_columns(teacher)).square().mean()
        return self.instance * across + self.classes * down + self.correlation * apart


def _between_columns(logits: Tensor) -> Tensor:
    """(classes, classes): Pearson correlations between the logits of two classes over the batch."""
    columns = (logits - logits.mean(dim=0)).T
    lengths: Tensor = columns.norm(dim=-1, keepdim=True)
    columns = columns / (lengths + EPS)
    return columns @ columns.T


class MultiLevel(Imitation):
    """instance T^2 KL + batch |p_s p_s' - p_t p_t'|^2 / B + classes |p_s' p_s - p_t' p_t|^2 / C, for several T.

    MLKD: Jin et al., 2023 (CVPR), summed over the temperatures: the answers, how alike they are between
    samples (B x B) and between classes (C x C). The temperatures and the divisors are those of the authors' code, which
    also shows both networks a second, stronger view and halves the three parts on the first; here one view is shown
    and they count in full.
    """

    def __init__(
        self,
        *,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        instance: float = 1.0,
        batch: float = 1.0,
        classes: float = 1.0,
    ) -> None:
        super().__init__()
        if not temperatures:
            raise ValueError("temperatures is empty; it lists one or more")
        above_zero(temperatures=min(temperatures))
        self.temperatures = tuple(temperatures)
        self.instance, self.batch, self.classes = instance, batch, classes

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        return torch.stack([self._at(student, teacher, temperature) for temperature in self.temperatures]).sum()

    def _at(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        s, t = ((said / temperature).softmax(dim=-1) for said in (student, teacher))
        samples, count = max(1, len(s)), s.shape[-1]
        return (
            self.instance * divergence(student, teacher, temperature=temperature)
            + self.batch * (s @ s.T - t @ t.T).square().sum() / samples
            + self.classes * (s.T @ s - t.T @ t).square().sum() / count
        )
