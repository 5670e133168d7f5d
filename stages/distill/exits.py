"""Exits on the way through a student: heads at its stages that learn from its end, and teach what lies before them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .nouns import Need, Step, Term
from .ramps import Ramp
from .response import divergence


@dataclass(frozen=True, kw_only=True)
class ExitShape:
    """What an exit is built from. channels: of what passes its tap. width: of its embedding.

    halvings: how often height and width are halved on the way to it; None: tokens pass, not maps.
    """

    channels: int
    width: int
    classes: int
    halvings: int | None

    @classmethod
    def between(cls, here: Tensor, end: Tensor, classes: int) -> ExitShape:
        """An exit at `here` that does in small what the network does on the way to `end`."""
        if here.ndim == 3:
            return cls(channels=here.shape[2], width=end.shape[-1], classes=classes, halvings=None)
        ratio = max(here.shape[2] / end.shape[2], here.shape[3] / end.shape[3])
        return cls(
            channels=here.shape[1], width=end.shape[1], classes=classes, halvings=max(0, round(math.log2(ratio)))
        )


class Exit(nn.Module):
    """A head at a stage: separable convolutions down to the size of the last map, a mean over positions, a classifier.

    The last layer is called `classifier`; what it is given is the embedding, of the width of the network's own.
    """

    def __init__(self, shape: ExitShape) -> None:
        super().__init__()
        self.shape = shape
        steps: list[nn.Module] = []
        channels = shape.channels
        for _ in range(shape.halvings or 0):
            steps += [
                nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        if shape.halvings is None:
            steps += [nn.Linear(channels, shape.width), nn.GELU()]
        else:
            steps += [nn.Conv2d(channels, shape.width, 1, bias=False), nn.BatchNorm2d(shape.width), nn.ReLU()]
        self.body = nn.Sequential(*steps)
        self.is_map = shape.halvings is not None
        self.classifier = nn.Linear(shape.width, shape.classes)

    def embedding(self, features: Tensor) -> Tensor:
        """(batch, width)."""
        passed: Tensor = self.body(features)
        return passed.mean(dim=(2, 3)) if self.is_map else passed.mean(dim=1)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.embedding(features))
        return logits


class _HasExits(Term):
    """A term with heads at stages of the student, built from the shapes that pass there."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = nn.ModuleList()

    def taps(self) -> list[str]:
        """Where the features come from, from the shallowest to the last, which has no exit of its own."""
        return [mine for mine, _ in self.pairs]

    def shapes(self, probe: Step, taps: Sequence[str]) -> list[ExitShape]:
        """Of an exit at each tap. StageError: the last tap is the only one, or the student answers for positions."""
        feats, logits = probe.student.feats, probe.student.logits
        if logits.ndim != 2:
            raise StageError("exits answer once for each sample, and this network answers for each position")
        if len(self.pairs) < 2:
            raise StageError(
                "exits need a stage before the last, and one was found: name the taps, from the first to the last, for "
                "example taps: [[block1, ''], [block2, ''], [block3, '']]"
            )
        end = feats[self.taps()[-1]]
        return [ExitShape.between(feats[tap], end, logits.shape[1]) for tap in taps]


class BeYourOwnTeacher(_HasExits):
    """Sum over exits of (1 - a) CE(z_i, y) + a T^2 KL(softmax(z / T) || softmax(z_i / T)) + b |f_i - f|^2.

    z, f: the student's own answer and last pooled features, which get no gradient; z_i, f_i: an exit's. Zhang et al.,
    2019 (be your own teacher, arXiv:1905.08094). imitate a = 0.1 and temperature 3 are those of the public re-run; its
    b = 1e-6 multiplies a sum over a batch of 128, which as a mean over the batch is hint 1.28e-4; as there, features of
    which neither is positive do not count. The exits are separable convolutions and a classifier (our choice: small,
    so that one can be kept) and are gone after training, unless `distill.keep_exit` keeps one. The end learns from `ce`
    beside it.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})
    place: ClassVar[str | None] = "@stages"

    def __init__(self, *, imitate: float = 0.1, temperature: float = 3.0, hint: float = 1.28e-4) -> None:
        super().__init__()
        self.imitate, self.temperature, self.hint = imitate, temperature, hint

    def build(self, probe: Step) -> None:
        self.exits = nn.ModuleList(Exit(shape) for shape in self.shapes(probe, self.taps()[:-1]))

    def forward(self, step: Step) -> Tensor:
        *taps, last = self.taps()
        feats, labels, deepest = step.student.feats, step.labels(), step.student.logits.detach()
        wanted = pooled(feats[last]).detach()
        total = deepest.new_zeros(())
        for tap, head in zip(taps, self.exits, strict=True):
            assert isinstance(head, Exit)
            embedding = head.embedding(feats[tap])
            logits = head.classifier(embedding)
            total = total + (1 - self.imitate) * F.cross_entropy(logits, labels)
            total = total + self.imitate * divergence(logits, deepest, temperature=self.temperature)
            counts = (embedding > 0) | (wanted > 0)
            total = total + self.hint * (counts * (embedding - wanted).square()).sum(dim=1).mean()
        return total


class OnTheFlyEnsemble(_HasExits):
    """Sum over branches of CE(z_k, y) + CE(z_e, y) + w T^2 sum_k KL(softmax(z_e / T) || softmax(z_k / T)).

    z_e = sum_k g_k z_k, g the softmax of a gate on the features that the branches share; it is a target without a
    gradient. Lan et al., 2018 (ONE, arXiv:1806.04606); temperature 3, three branches in all and w rising along
    exp(-5 (1 - t)^2) over 80 of 300 epochs are those of the authors' code. The student itself is the first branch and
    learns its own CE from `ce` beside it. Theirs repeat the network's last stage; these are exits on the last but
    one, because not every network can be taken apart, and are gone after training.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})
    place: ClassVar[str | None] = "@stages"

    def __init__(self, *, branches: int = 3, temperature: float = 3.0, rise: float = 80 / 300) -> None:
        super().__init__()
        if branches < 2:
            raise ValueError("branches counts the student too: at least 2")
        self.branches, self.temperature = branches, temperature
        self.rise = Ramp(epochs=rise, kind="sigmoid")
        self.gate = nn.Sequential()

    def build(self, probe: Step) -> None:
        shape = self.shapes(probe, self.taps()[-2:-1])[0]
        self.exits = nn.ModuleList(Exit(shape) for _ in range(self.branches - 1))
        self.gate = nn.Sequential(
            nn.Linear(shape.channels, self.branches), nn.BatchNorm1d(self.branches), nn.ReLU(), nn.Softmax(dim=1)
        )

    def forward(self, step: Step) -> Tensor:
        shared, labels = step.student.feats[self.taps()[-2]], step.labels()
        others = [head(shared) for head in self.exits]
        answers = torch.stack([step.student.logits, *others])
        gates: Tensor = self.gate(pooled(shared))
        ensemble = torch.einsum("bk,kbc->bc", gates, answers)
        learned = F.cross_entropy(ensemble, labels) + sum(F.cross_entropy(one, labels) for one in others)
        wanted = ensemble.detach()
        imitated = torch.stack([divergence(one, wanted, temperature=self.temperature) for one in answers]).sum()
        return learned + self.rise.at(step.progress) * imitated


def pooled(features: Tensor) -> Tensor:
    """The mean over positions of maps or tokens: (batch, channels)."""
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features.mean(dim=1)
