"""Imitation without a temperature: of the logits themselves, of the teacher's choice, of its sorted beliefs."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from ...targets.errors import StageError
from .nouns import Need, Step, Term
from .response import Imitation, above_zero, answers, average, one_of

Distance = Literal["mse", "l1"]


class LogitRegression(Imitation):
    """mean (z_s - z_t)^2. Bucila et al., 2006 (KDD); Ba & Caruana, 2014 (arXiv:1312.6184).

    The limit of kd for a high temperature and logits of mean 0, but for a factor. distance: `l1` is mean |z_s - z_t|,
    as data-free methods have it. Also the way to distil a regression, whose answers are not logits at all.
    """

    def __init__(self, *, distance: Distance = "mse") -> None:
        super().__init__()
        one_of(distance, get_args(Distance), option="distance")
        self.distance = distance

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        gap = student - teacher
        return average(gap.square() if self.distance == "mse" else gap.abs())


class HardLabel(Imitation):
    """Cross-entropy with the class that the teacher chooses: -log p_s[argmax z_t].

    Touvron et al., 2020 (arXiv:2012.12877), equation 3: DeiT gives it and the labels one half each. No label is needed.
    """

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        return average(F.cross_entropy(student, teacher.argmax(dim=-1), reduction="none"))


class UniversalLogit(Term):
    """sum_i |sort(p_s)_i - sort(p_t)_i|, p = softmax(z / T), the shorter filled with zeros.

    Boizard et al., 2024 (arXiv:2402.12030): how much is believed and not of what, so that student and teacher may have
    different classes or tokenisers. They must still answer at the same positions.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    any_classes: ClassVar[bool | None] = True

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.temperature = temperature

    def build(self, probe: Step) -> None:
        mine, theirs = (len(said) for said in answers(probe))
        if mine != theirs:
            raise StageError(
                f"the student answers at {mine} positions and the teacher at {theirs}: the loss uld compares the "
                "beliefs at each position, so both must be shown sequences of one length"
            )

    def forward(self, step: Step) -> Tensor:
        student, teacher = (
            (said / self.temperature).softmax(dim=-1).sort(dim=-1, descending=True).values for said in answers(step)
        )
        longer = max(student.shape[-1], teacher.shape[-1])
        student, teacher = (F.pad(said, (0, longer - said.shape[-1])) for said in (student, teacher))
        return average((student - teacher).abs().sum(dim=-1))
