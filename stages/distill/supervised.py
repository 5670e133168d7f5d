"""The losses of tasks that are no choice of one class: several labels at once, and numbers."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ...targets.errors import StageError
from .nouns import Need, Step, Term
from .response import Imitation, above_zero, answers, average, rows


class BinaryCrossEntropy(Term):
    """-y log p - (1 - y) log(1 - p) of each label, for answers that may be right several at a time.

    y: (batch, labels), 0 or 1 or in between; negative where nobody knows. The mean over samples and labels: each label
    is a task of its own, and bkd is averaged alike, so their weights compare.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})

    def build(self, probe: Step) -> None:
        _alike(probe)

    def forward(self, step: Step) -> Tensor:
        said, target = rows(step.student.logits, step.batch.mask), _alike(step)
        known = target >= 0
        loss = F.binary_cross_entropy_with_logits(said, target.clamp_min(0), reduction="none")
        return (loss * known).sum() / known.sum().clamp_min(1)


class BinaryDistillation(Imitation):
    """T^2 [ KL of yes or no, teacher to student ] of each label: p = sigmoid(z / T), averaged over samples and labels.

    For multi-label tasks, where labels do not exclude each other: the logit term of L2D (Yang et al., 2023,
    arXiv:2308.06453), whose code gives it the weight 10. The temperature of 1 and the mean over labels are ours.
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.temperature = temperature

    def forward(self, step: Step) -> Tensor:
        student, teacher = (said / self.temperature for said in answers(step))
        yes, no = F.logsigmoid(teacher), F.logsigmoid(-teacher)
        gap = yes.exp() * (yes - F.logsigmoid(student)) + no.exp() * (no - F.logsigmoid(-student))
        return self.temperature**2 * average(gap)


class MeanSquaredError(Term):
    """(z - y)^2, averaged over samples and numbers: the loss of a regression."""

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})

    def build(self, probe: Step) -> None:
        _alike(probe)

    def forward(self, step: Step) -> Tensor:
        return average((rows(step.student.logits, step.batch.mask) - _alike(step)).square())


class Huber(Term):
    """Squared error of small mistakes and absolute error of large ones. Huber, 1964 (Ann. Math. Statist. 35).

    0.5 e^2 where |e| <= delta, delta (|e| - 0.5 delta) elsewhere, averaged over samples and numbers.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})

    def __init__(self, *, delta: float = 1.0) -> None:
        super().__init__()
        above_zero(delta=delta)
        self.delta = delta

    def build(self, probe: Step) -> None:
        _alike(probe)

    def forward(self, step: Step) -> Tensor:
        said = rows(step.student.logits, step.batch.mask)
        return average(F.huber_loss(said, _alike(step), delta=self.delta, reduction="none"))


def _alike(step: Step) -> Tensor:
    """The labels as numbers in the order and shape of the answers. StageError: they do not fit them."""
    said, target = step.student.logits, step.labels()
    if target.numel() != said.numel() or len(target) != len(said):
        raise StageError(
            f"the student answers in the shape {tuple(said.shape)} and the labels have {tuple(target.shape)}: "
            "this loss compares them number by number"
        )
    return rows(target.reshape(said.shape).float(), step.batch.mask)
