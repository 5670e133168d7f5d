"""Losses on the answers alone: the task's own, and imitation of a teacher's logits."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .nouns import Need, Step, Term

Kind = Literal["forward", "reverse", "js", "tv"]


def rows(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """(positions, classes): logits of every sample, pixel or token that counts.

    logits: (batch, classes), (batch, classes, height, width) or (batch, length, classes). mask: of that shape without
    classes; where it is False nothing counts.
    """
    last = logits.movedim(1, -1) if logits.ndim == 4 else logits
    return last.reshape(-1, last.shape[-1]) if mask is None else last[mask.bool()]


def divergence(student: Tensor, teacher: Tensor, *, temperature: float | Tensor, kind: Kind = "forward") -> Tensor:
    """How far the student's tempered softmax is from the teacher's, times temperature squared.

    student, teacher: logits, (..., classes). kind: `forward` is KL(teacher || student), `reverse` the other way round,
    `js` the Jensen-Shannon divergence, `tv` the total variation. Summed over classes and averaged over everything else,
    so padding the classes or repeating the batch does not rescale it. The square keeps the size of the gradient when
    the temperature is tuned: Hinton et al., 2015 (arXiv:1503.02531), section 2.
    """
    return each_divergence(student, teacher, temperature=temperature, kind=kind).mean()


def each_divergence(student: Tensor, teacher: Tensor, *, temperature: float | Tensor, kind: Kind = "forward") -> Tensor:
    """The same for each row: (...)."""
    s = F.log_softmax(student / temperature, dim=-1)
    t = F.log_softmax(teacher / temperature, dim=-1)
    if kind == "forward":
        value = (t.exp() * (t - s)).sum(dim=-1)
    elif kind == "reverse":
        value = (s.exp() * (s - t)).sum(dim=-1)
    elif kind == "tv":
        value = (t.exp() - s.exp()).abs().sum(dim=-1) / 2
    else:
        middle = torch.logaddexp(s, t) - torch.log(torch.tensor(2.0))
        value = ((t.exp() * (t - middle)).sum(dim=-1) + (s.exp() * (s - middle)).sum(dim=-1)) / 2
    square = temperature**2
    return value * (square.squeeze(-1) if isinstance(square, Tensor) and square.ndim == value.ndim + 1 else square)


class CrossEntropy(Term):
    """Cross-entropy with the labels: -log p_y."""

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})

    def forward(self, step: Step) -> Tensor:
        return F.cross_entropy(step.student.logits, step.labels())


class KnowledgeDistillation(Term):
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)). Hinton et al., 2015 (arXiv:1503.02531), section 2."""

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, step: Step) -> Tensor:
        mask = step.batch.mask
        return divergence(
            rows(step.student.logits, mask), rows(step.teacher().logits, mask), temperature=self.temperature
        )
