"""The divergence taken apart: how much two groups of classes are believed, and how the belief divides within each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...targets.errors import StageError
from .nouns import Need, Step
from .response import Imitation, above_zero, average, labelled


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The pieces of a divergence, each (positions,), times temperature squared.

    between: of the groups' masses. inside, outside: within each group. mass: the teacher's belief in the group.
    The whole divergence is between + mass * inside + (1 - mass) * outside.
    """

    between: Tensor
    inside: Tensor
    outside: Tensor
    mass: Tensor


def take_apart(student: Tensor, teacher: Tensor, group: Tensor, *, temperature: float) -> Parts:
    """Split each row's divergence by a group of classes.

    student, teacher: logits, (positions, classes). group: which classes are in it, of that shape; neither none nor all.
    """
    s = F.log_softmax(student / temperature, dim=-1)
    t = F.log_softmax(teacher / temperature, dim=-1)
    inside, within = _within(s, t, group)
    outside, without = _within(s, t, ~group)
    (s_in, t_in), (s_out, t_out) = within, without
    between = t_in.exp() * (t_in - s_in) + t_out.exp() * (t_out - s_out)
    square = temperature**2
    return Parts(between=square * between, inside=square * inside, outside=square * outside, mass=t_in.exp())


def _within(s: Tensor, t: Tensor, group: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The divergence inside a group, and the logarithms of both masses of the group."""
    outside = ~group
    s_mass, t_mass = (p.masked_fill(outside, -torch.inf).logsumexp(dim=-1) for p in (s, t))
    # Outside the group the differences mean nothing; they are finite, so a zero in front of them removes them.
    s_in, t_in = s - s_mass.unsqueeze(-1), (t - t_mass.unsqueeze(-1)).masked_fill(outside, -torch.inf)
    gap = (t_in - s_in).masked_fill(outside, 0.0)
    return (t_in.exp() * gap).sum(dim=-1), (s_mass, t_mass)


def each_decoupled(
    student: Tensor, teacher: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """(positions,): alpha times the divergence of (target, all others), plus beta times that among the others."""
    group = F.one_hot(target, student.shape[-1]).bool()
    parts = take_apart(student, teacher, group, temperature=temperature)
    return alpha * parts.between + beta * parts.outside


class Decoupled(Imitation):
    """T^2 [ alpha KL(b_t || b_s) + beta KL(q_t || q_s) ], b = (p_y, 1 - p_y), q = softmax over the classes but y.

    Zhao et al., 2022 (arXiv:2203.08679). kd is the same with alpha = 1 and, for each sample, beta = 1 - p_y of the
    teacher: what the teacher knows of the other classes fades where it is sure, and here it does not. The defaults are
    those of most pairs in the authors' code (beta 2 for ResNet-56 to ResNet-20), which weighs ce with 1 and ramps the
    loss over the first 20 epochs (`ramp: 20`).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels"})

    def __init__(self, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, step: Step) -> Tensor:
        each = each_decoupled(*labelled(step), alpha=self.alpha, beta=self.beta, temperature=self.temperature)
        return average(each)


class CorrelationAware(Imitation):
    """T^2 [ binary KL(P_t || P_s) + strong KL within S + weak KL within the rest ], P = the beliefs in S and the rest.

    CAKD: Zhang et al., 2024 (arXiv:2410.14741), of which the abstract was read: it names these three parts and weighs
    them. S is chosen here as the label and the `count` classes that the teacher finds most likely, and the weights of
    1 are a start of our own. kd is the same with 1 and, for each sample, the teacher's beliefs in S and in the rest.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels"})

    def __init__(
        self, *, binary: float = 1.0, strong: float = 1.0, weak: float = 1.0, count: int = 2, temperature: float = 4.0
    ) -> None:
        super().__init__()
        above_zero(temperature=temperature, count=count)
        self.binary, self.strong, self.weak = binary, strong, weak
        self.count, self.temperature = count, temperature

    def build(self, probe: Step) -> None:
        super().build(probe)
        classes = labelled(probe)[0].shape[-1]
        if self.count + 1 >= classes:
            raise StageError(
                f"the label and {self.count} likely classes leave nothing of {classes} classes for the weak group: "
                f"set count of the loss cakd below {classes - 1}"
            )

    def forward(self, step: Step) -> Tensor:
        student, teacher, target = labelled(step)
        group = F.one_hot(target, student.shape[-1]).bool()
        group = group.scatter(-1, teacher.topk(self.count, dim=-1).indices, value=True)
        parts = take_apart(student, teacher, group, temperature=self.temperature)
        return average(self.binary * parts.between + self.strong * parts.inside + self.weak * parts.outside)
