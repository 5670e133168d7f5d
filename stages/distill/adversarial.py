"""A student against a discriminator, which tells its answers from the teacher's and which it learns to fool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .adapters import adapter, meet
from .nouns import Need, Opponent, Step, Term

Game = Literal["bce", "ls", "hinge"]
Pairs = Callable[[Step], tuple[Tensor, Tensor]]  # -> what the student and the teacher said, in one space


def told(teacher: Tensor, student: Tensor, game: Game) -> Tensor:
    """The discriminator's loss, from its verdicts: high for whom it takes for the teacher.

    bce: softplus(-d_t) + softplus(d_s), Goodfellow et al., 2014 (arXiv:1406.2661). ls: (d_t - 1)^2 + d_s^2, Mao et al.,
    2017 (arXiv:1611.04076). hinge: max(0, 1 - d_t) + max(0, 1 + d_s), Lim and Ye, 2017 (arXiv:1705.02894).
    """
    if game == "bce":
        return (F.softplus(-teacher) + F.softplus(student)).mean()
    if game == "ls":
        return ((teacher - 1).square() + student.square()).mean()
    return (F.relu(1 - teacher) + F.relu(1 + student)).mean()


def fooled(student: Tensor, game: Game) -> Tensor:
    """The student's loss: softplus(-d_s) for bce, (d_s - 1)^2 for ls, -d_s for hinge."""
    if game == "bce":
        return F.softplus(-student).mean()
    return (student - 1).square().mean() if game == "ls" else -student.mean()


class Tell(Term):
    """The opponent's term: tell the teacher's answers from the student's. Neither of the two gets a gradient."""

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def __init__(self, discriminator: nn.Module, look: Pairs, game: Game) -> None:
        super().__init__()
        self.game = game
        self._look, self._discriminator = look, [discriminator]  # its player saves it

    def forward(self, step: Step) -> Tensor:
        student, teacher = (said.detach() for said in self._look(step))
        judge = self._discriminator[0]
        return told(judge(teacher), judge(student), self.game)


class _Fools(Term):
    """A term whose discriminator plays against the student."""

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def __init__(self, *, loss: Game, width: int, lr: float) -> None:
        super().__init__()
        if loss not in ("bce", "ls", "hinge"):
            raise ValueError(f"loss is bce, ls or hinge, not {loss!r}")
        self.game: Game = loss
        self.width, self.lr = width, lr
        self._discriminator: list[nn.Module] = []  # in a list: it is the opponent's, not learned with the student

    def look(self, step: Step) -> tuple[Tensor, Tensor]:
        """What the student and the teacher said, in one space."""
        return step.student.logits, step.teacher().logits

    def build(self, probe: Step) -> None:
        student, _ = self.look(probe)
        self._discriminator = [discriminator(student.ndim, student.shape[-1 if student.ndim == 3 else 1], self.width)]
        self._discriminator[0].to(student.device)

    def forward(self, step: Step) -> Tensor:
        student, _ = self.look(step)
        return fooled(self._discriminator[0](student), self.game)

    def opponent(self) -> Opponent:
        term = Tell(self._discriminator[0], self.look, self.game)
        term.pairs = self.pairs
        return Opponent(module=self._discriminator[0], term=term, lr=self.lr)


class Fool(_Fools):
    """-log D(z_s) against a discriminator D of logits, which learns from the teacher's (real) and the student's (fake).

    Xu et al., 2018 (arXiv:1709.00513), of which the abstract was read: a discriminator learns the loss. Theirs is
    conditional on the label and stands beside other losses; here `kd` or `ce` beside it says which class is right.
    Maps of logits (segmentation) are judged as wholes by convolutions, as the holistic loss of Liu et al., 2019
    (arXiv:1903.04197), whose weight is 0.1. loss bce, ls or hinge; spectral norm (Miyato et al., 2018,
    arXiv:1802.05957) keeps D from winning outright. width, lr and the layers are our choice. Give it a small weight.
    """

    def __init__(self, *, loss: Game = "bce", width: int = 64, lr: float = 2e-4) -> None:
        super().__init__(loss=loss, width=width, lr=lr)


class FoolFeatures(_Fools):
    """-log D(f_s) against a discriminator D of the last features, the student's adapted to the teacher's shape.

    Chung et al., 2020 (feature-map-level online adversarial distillation, arXiv:2002.01775), of which the abstract was
    read; there networks of one kind play among each other, here a student against its teacher. loss, width, lr as in
    `fool`.
    """

    place: ClassVar[str | None] = "@stages"

    def __init__(self, *, loss: Game = "ls", width: int = 64, lr: float = 2e-4) -> None:
        super().__init__(loss=loss, width=width, lr=lr)
        self.adapt: nn.Module = nn.Identity()

    def look(self, step: Step) -> tuple[Tensor, Tensor]:
        *_, (student, teacher) = step.pairs(self.pairs)
        student, teacher = meet(student, teacher)
        return self.adapt(student), teacher

    def build(self, probe: Step) -> None:
        *_, (student, teacher) = probe.pairs(self.pairs)
        self.adapt = adapter(student.shape[1:], teacher.shape[1:]).to(student.device)
        super().build(probe)

    def learned(self) -> Iterator[nn.Parameter]:
        return self.adapt.parameters()


def discriminator(dimensions: int, channels: int, width: int) -> nn.Module:
    """One verdict for each sample: of vectors, tokens (dimensions 3) or maps (4)."""
    if dimensions == 4:
        return nn.Sequential(
            spectral_norm(nn.Conv2d(channels, width, 3, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, width, 3, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            spectral_norm(nn.Linear(width, 1)),
        )
    return nn.Sequential(
        spectral_norm(nn.Linear(channels, width)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Linear(width, width)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Linear(width, 1)),
    )
