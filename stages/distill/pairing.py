"""What losses on pairs of taps share: the two features meet, the student's is widened, one value for each pair."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from .adapters import adapter, meet
from .nouns import Need, Step, Term


class OverPairs(Term):
    """A sum over pairs of taps. The teacher's features are detached; both have met (see adapters.meet)."""

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@stages"

    def forward(self, step: Step) -> Tensor:
        values = [
            self.compare(*meet(mine, theirs.detach()), index)
            for index, (mine, theirs) in enumerate(step.pairs(self.pairs))
        ]
        return torch.stack(values).sum()

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        """The loss of one pair: one number. index: which pair it is."""


class Adapted(OverPairs):
    """The same where the student's features are given the teacher's width, by an adapter for each pair."""

    def build(self, probe: Step) -> None:
        self.adapters = nn.ModuleList(
            adapter(mine.shape[1:], theirs.shape[1:]) for mine, theirs in probe.pairs(self.pairs)
        )

    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        return self.distance(self.adapters[index](student), teacher, index)

    @abstractmethod
    def distance(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        """The same for features of equal shape."""
