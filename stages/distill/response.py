"""Losses on the answers alone: the task's own, and imitation of a teacher's logits."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from .nouns import Need, Step, Term


def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """KL(teacher || student) of tempered softmaxes, times temperature squared.

    student, teacher: logits, (..., classes). Summed over classes and averaged over everything else, so padding the
    classes or repeating the batch does not rescale it. The square keeps the size of the gradient when the
    temperature is tuned: Hinton et al., 2015 (arXiv:1503.02531), section 2.
    """
    classes = student.shape[-1]
    return temperature**2 * F.kl_div(
        F.log_softmax(student.reshape(-1, classes) / temperature, dim=-1),
        F.log_softmax(teacher.reshape(-1, classes) / temperature, dim=-1),
        log_target=True,
        reduction="batchmean",
    )


class CrossEntropy(Term):
    """`ce`: the usual cross-entropy with the labels."""

    needs: ClassVar[frozenset[Need]] = frozenset({"logits", "labels"})

    def forward(self, step: Step) -> Tensor:
        return F.cross_entropy(step.student.logits, step.labels())


class KnowledgeDistillation(Term):
    """`kd`: imitate a teacher's tempered answers. Hinton et al., 2015 (arXiv:1503.02531), section 2."""

    needs: ClassVar[frozenset[Need]] = frozenset({"logits", "teacher"})

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, step: Step) -> Tensor:
        return divergence(step.student.logits, step.teacher().logits, temperature=self.temperature)
