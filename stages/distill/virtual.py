"""Targets that no network said: made from the label alone, set right by it, or simplified for the student."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ..tasks import IGNORED
from .nouns import Need, Step, Term
from .response import Imitation, above_zero, answers, divergence, labelled, labels, rows


class TeacherFree(Term):
    """T^2 KL(softmax(log u / T) || softmax(z_s / T)), u_y = certainty and (1 - certainty) / (C - 1) elsewhere.

    Tf-KD with a teacher by hand: Yuan et al., 2020 (arXiv:1909.11723). A virtual teacher who is right with 0.99, T 20,
    as in the authors' code; that code softens u itself instead of its logarithm, leaves the student at T = 1 and
    averages over classes, so its weights do not carry over. At T = 1 this is label smoothing, but for a constant.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})

    def __init__(self, *, certainty: float = 0.99, temperature: float = 20.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        if not 0 < certainty < 1:
            raise ValueError(f"certainty is {certainty}; it must lie between 0 and 1")
        self.certainty, self.temperature = certainty, temperature

    def build(self, probe: Step) -> None:
        if rows(probe.student.logits).shape[-1] < 2:
            raise StageError("the loss tfkd divides belief among classes, and the student tells a single number")

    def forward(self, step: Step) -> Tensor:
        student, target = rows(step.student.logits, step.batch.mask), labels(step)
        there = target != IGNORED
        student, target = student[there], target[there]
        others = math.log((1 - self.certainty) / (student.shape[-1] - 1))
        virtual = torch.full_like(student, others).scatter(-1, target.unsqueeze(-1), math.log(self.certainty))
        return divergence(student, virtual, temperature=self.temperature)


class DynamicRectification(Imitation):
    """kd with a teacher whose wrong first choice changes places with the label's logit before it is imitated.

    DR-KD: Amik et al., 2022 (arXiv:2201.11319), of which the abstract was read: a student that was trained before is
    its own teacher, and its wrong answers are set right by the label before they are distilled. That two logits change
    places is our reading, any teacher may be given, and the temperature is the usual one of kd.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels"})

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.temperature = temperature

    def forward(self, step: Step) -> Tensor:
        student, teacher, target = labelled(step)
        return divergence(student, rectified(teacher, target), temperature=self.temperature)


def rectified(teacher: Tensor, target: Tensor) -> Tensor:
    """The teacher's logits with the largest where the label is: those two change places."""
    first, right = teacher.argmax(dim=-1, keepdim=True), target.unsqueeze(-1)
    swapped = teacher.scatter(-1, first, teacher.gather(-1, right))
    return swapped.scatter(-1, right, teacher.gather(-1, first))


class Simplifier(nn.Module):
    """Attention between the answers of a batch: what is added to each, at first nothing."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(classes, classes) for _ in range(3))
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, logits: Tensor) -> Tensor:
        said: Tensor = F.scaled_dot_product_attention(self.query(logits), self.key(logits), self.value(logits))
        return said


class StudentFriendly(Imitation):
    """KL(p || softmax(z_s / T)) T^2 with a simplified teacher p = softmax(z_t / T + attention(z_t / T)).

    SKD: Yuan et al., 2023 (arXiv:2305.10893), of which the abstract was read: softening by a temperature, then a
    learning simplifier with attention, trained together with the student by the distillation loss. Ours: one head of
    attention between the samples of a batch, whose values start at 0, so that training starts as kd. Nothing in the
    loss holds the simplified teacher to the real one: keep ce beside it.
    """

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.temperature = temperature

    def build(self, probe: Step) -> None:
        super().build(probe)
        logits = probe.student.logits
        if logits.ndim != 2:
            raise StageError("the loss skd attends between samples; it is not for answers at every pixel or token")
        self.simplifier = Simplifier(logits.shape[1])

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        softened = teacher / self.temperature
        simplified = softened + self.simplifier(softened)
        return divergence(student, self.temperature * simplified, temperature=self.temperature)
