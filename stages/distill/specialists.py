"""Teachers who know a few classes well beside one who knows them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...targets.errors import StageError, did_you_mean
from .nouns import Need, Step, Term
from .response import above_zero, average, divergence, each_divergence, refuse_unlike, rows


class Specialists(Term):
    """T^2 [ KL(p_g || q) + sum over active specialists m of KL(p_m || q on S_m and the dustbin) ], q the student.

    Hinton et al., 2015 (arXiv:1503.02531), section 5. p_g: the generalist. A specialist m knows the classes S_m and
    calls everything else the dustbin; it is active for a sample whose first class by the generalist is one of its own.
    The paper finds the q that minimises this for each image and would train on it; here the student itself is q.

    classes: class numbers of each specialist, by the teacher's name; teachers without any are generalists. A specialist
    answers either for all classes or for its own, in this order, with the dustbin last.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "teachers"})
    every_teacher: ClassVar[bool] = True
    any_classes: ClassVar[bool | None] = True  # a specialist's own and a dustbin; `build` refuses any others

    def __init__(self, *, classes: Mapping[str, Sequence[int]], temperature: float = 4.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        for name, known in classes.items():
            if not known or len(set(known)) < len(known) or min(known) < 0:
                raise ValueError(f"classes of {name} is {list(known)}; it lists different class numbers, from 0")
        self.classes = {name: list(known) for name, known in classes.items()}
        self.temperature = temperature

    def build(self, probe: Step) -> None:
        said = rows(probe.student.logits)
        for name, known in self.classes.items():
            if name not in probe.teachers:
                raise StageError(
                    f"the loss specialists: no teacher is called {name!r}{did_you_mean(name, probe.teachers)}; "
                    f"there are {', '.join(probe.teachers)}"
                )
            if max(known) >= said.shape[-1]:
                raise StageError(f"the loss specialists gives {name} class {max(known)} of {said.shape[-1]} classes")
            theirs = rows(probe.teachers[name].logits)
            if theirs.shape[-1] != len(known) + 1:
                refuse_unlike(said, theirs, name=name)
        generalists = [name for name in probe.teachers if name not in self.classes]
        if not generalists:
            raise StageError("the loss specialists needs a teacher of all classes too: leave one out of classes")
        for name in generalists:
            refuse_unlike(probe.student.logits, probe.teachers[name].logits, name=name)

    def forward(self, step: Step) -> Tensor:
        mask = step.batch.mask
        student = rows(step.student.logits, mask)
        told = {name: rows(said.logits, mask) for name, said in step.teachers.items()}
        generalists = [said for name, said in told.items() if name not in self.classes]
        losses = [divergence(student, said, temperature=self.temperature) for said in generalists]
        value = torch.stack(losses).mean()
        first = generalists[0].argmax(dim=-1)
        for name, known in self.classes.items():
            active = torch.isin(first, torch.tensor(known, device=first.device))
            value = value + average(active * self._apart(student, told[name], known))
        return value

    def _apart(self, student: Tensor, teacher: Tensor, known: Sequence[int]) -> Tensor:
        """(positions,): how far the student is from a specialist on its classes and the dustbin."""
        mine = with_dustbin(F.log_softmax(student / self.temperature, dim=-1), known)
        theirs = F.log_softmax(teacher / self.temperature, dim=-1)
        if teacher.shape[-1] == student.shape[-1]:
            theirs = with_dustbin(theirs, known)
        return self.temperature**2 * each_divergence(mine, theirs, temperature=1.0)


def with_dustbin(log_beliefs: Tensor, known: Sequence[int]) -> Tensor:
    """Logarithms of the beliefs in some classes, and of that in all the others together, last."""
    others = [number for number in range(log_beliefs.shape[-1]) if number not in known]
    if not others:
        return log_beliefs[..., list(known)]
    return torch.cat([log_beliefs[..., list(known)], log_beliefs[..., others].logsumexp(dim=-1, keepdim=True)], dim=-1)
