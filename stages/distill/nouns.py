"""The nouns of the training core: what a model said, what a loss may look at, and who plays.

An Out is what a model said about a batch, a Step is everything that a Term may look at, a Term is one loss, a
Source brings teachers' answers or samples, and a Player is something with an optimiser.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ...targets.errors import StageError
from .ramps import Ramp

Need = Literal["labels", "index", "mask", "teacher", "teachers", "view", "classmate", "models"]
Shape = tuple[int, ...]
Pair = tuple[str, str]  # a tap of the student and the tap of the teacher that it imitates


@dataclass(frozen=True, kw_only=True)
class Out:
    """What a model said about a batch.

    logits: (batch, classes); (batch, classes, height, width) of dense tasks; (batch, length, classes) of tokens.
    feats: outputs of the tapped modules, by tap. view: what it said about the batch's second view, if there is one.
    """

    logits: Tensor
    feats: Mapping[str, Tensor] = field(default_factory=dict)
    view: Out | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples as a Source gives them.

    x: what the student takes: normalised images, or token numbers. y: labels, or None. index: each sample's place in
    the data, or None. mask: where y and the logits count, of their shape without classes, or None for everywhere; of
    texts that get one answer each, which tokens are no padding, (batch, length).
    teacher_x: what the teacher takes where that is something else. view: a second input for the student: another
    variation of the same samples, or other samples of their classes. variant: which of each sample's fixed variations
    this is, so that index and variant say what the teacher takes; None where it differs from time to time.
    """

    x: Tensor
    y: Tensor | None = None
    index: Tensor | None = None
    mask: Tensor | None = None
    teacher_x: Tensor | None = None
    view: Tensor | None = None
    variant: int | None = None


@dataclass(frozen=True, kw_only=True)
class Lasting:
    """Samples that come again, in so many fixed variations of each. fingerprint: of all that determines them."""

    fingerprint: str
    count: int
    variants: int = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """Everything that a Term may look at.

    progress: 0 at the first step of training, 1 at the last. epoch: epochs gone, with fractions. trust: (teachers,
    batch), how much each teacher counts, adding up to 1 over teachers; None: alike. learner, models: the networks
    themselves, student and teachers by name, for terms that look at weights.
    """

    batch: Batch
    student: Out
    teachers: Mapping[str, Out]
    progress: float
    epoch: float = 0.0
    trust: Tensor | None = None
    learner: nn.Module | None = None
    models: Mapping[str, nn.Module] = field(default_factory=dict)

    def labels(self) -> Tensor:
        """The labels, where the term has declared that it needs them."""
        assert self.batch.y is not None, "a term without 'labels' in its needs asked for labels"
        return self.batch.y

    def index(self) -> Tensor:
        """The samples' places in the data, where the term has declared that it needs them."""
        assert self.batch.index is not None, "a term without 'index' in its needs asked for the index"
        return self.batch.index

    def second(self) -> Out:
        """What the student said of the second view, where the term has declared that it needs one."""
        assert self.student.view is not None, "a term without 'view' or 'classmate' in its needs asked for the view"
        return self.student.view

    def teacher(self) -> Out:
        """The only teacher, or the first."""
        return next(iter(self.teachers.values()))

    def pairs(self, pairs: Sequence[Pair]) -> Iterator[tuple[Tensor, Tensor]]:
        """Features of the student and of the (first) teacher at each pair of taps."""
        teacher = self.teacher()
        for mine, theirs in pairs:
            yield self.student.feats[mine], teacher.feats[theirs]

    def only(self, name: str) -> Step:
        """The same with a single teacher; `trust` is then how much it counts among the others."""
        models = {name: self.models[name]} if name in self.models else {}
        place = list(self.teachers).index(name)
        return replace(
            self, teachers={name: self.teachers[name]}, models=models, trust=self.shares()[place : place + 1]
        )

    def shares(self) -> Tensor:
        """(teachers, batch): how much each teacher counts for each sample."""
        if self.trust is not None:
            return self.trust
        logits = self.student.logits
        return torch.full((len(self.teachers), len(logits)), 1 / len(self.teachers), device=logits.device)


class Term(nn.Module):
    """One loss, with the paper, the formula and the defaults in its docstring. It leaves nothing in the student.

    needs: what a Step must hold. place: where its features come from when the recipe names no taps: `@stages`,
    `@pool`, `@att` ..., or none at all. every_teacher: it looks at all teachers at once; the others are applied to
    each teacher by itself. weighs_samples: with one of several teachers it multiplies by `step.shares()` itself, sample
    by sample; the others are multiplied by the mean. any_classes: whether its teacher may tell other classes apart than
    the student; None: where it has a place. of_teacher: its features are the teacher's alone; the first of each pair is
    empty. pairs: the taps that were found, set before `build`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    place: ClassVar[str | None] = None
    every_teacher: ClassVar[bool] = False
    weighs_samples: ClassVar[bool] = False
    any_classes: ClassVar[bool | None] = None
    of_teacher: ClassVar[bool] = False

    pairs: tuple[Pair, ...] = ()

    def narrowed(self, pair: Pair, student: Shape | None, teacher: Shape | None) -> Pair:
        """The pair that tells all this term reads of these two features, where less will do: kept answers are smaller.

        Shapes are without the batch; None: not known. Most terms read whole features.
        """
        return pair

    def build(self, probe: Step) -> None:
        """Create what depends on shapes, once, from one batch. Most terms have nothing to create."""

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """The loss of this batch: one number with a gradient."""

    def learned(self) -> Iterator[nn.Parameter]:
        """What is trained together with the student; not an opponent's parameters."""
        return self.parameters()

    def opponent(self) -> Opponent | None:
        """Who plays against the student, where the method has someone who does."""
        return None

    def settle(self, learner: nn.Module) -> None:
        """Write what was learned into the student's own parameters; called before it is evaluated and kept."""


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """A network with a loss of its own, such as a discriminator. It learns while the student holds still."""

    module: nn.Module
    term: Term
    lr: float = 2e-4


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A term in an objective.

    weight: a factor; negative where a player wants the opposite. ramp: how it grows or fades over epochs. teacher:
    the one it is applied to, where there are several.
    """

    name: str
    term: Term
    weight: float
    ramp: Ramp = field(default_factory=Ramp)
    teacher: str | None = None


class Objective(nn.Module):
    """A weighted sum of terms."""

    def __init__(self, parts: Sequence[Weighted]) -> None:
        super().__init__()
        self.parts = tuple(part for part in parts if part.weight != 0)
        self.terms = nn.ModuleDict({part.name: part.term for part in self.parts})
        self.balance = dict.fromkeys((part.name for part in self.parts), 1.0)
        if not self.parts:
            raise StageError("every loss weight is 0: there is nothing to learn. Give ce or kd a weight.")

    def needs(self) -> frozenset[Need]:
        """Everything that the terms need together."""
        return frozenset().union(*(part.term.needs for part in self.parts))

    def taps(self) -> tuple[str, ...]:
        """Every tap of the student that a term looks at."""
        looking = (part.term for part in self.parts if not part.term.of_teacher)
        return tuple(dict.fromkeys(mine for term in looking for mine, _ in term.pairs))

    def learned(self) -> list[nn.Parameter]:
        """The terms' own parameters that are trained with the student."""
        return [parameter for part in self.parts for parameter in part.term.learned()]

    def settle(self, learner: nn.Module) -> None:
        """Let every term write what it learned into the student."""
        for part in self.parts:
            part.term.settle(learner)

    def weight(self, part: Weighted, step: Step) -> float:
        """What the term counts for at this step."""
        return part.weight * part.ramp.at(step.epoch) * self.balance[part.name]

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each term's own value before its weight; a term that weighs nothing now is not computed."""
        values = {part.name: self.value(part, step) for part in self.parts if self.weight(part, step) != 0}
        return self.total(values, step), values

    def total(self, values: Mapping[str, Tensor], step: Step) -> Tensor:
        """The weighted sum of terms that were computed."""
        total = step.student.logits.new_zeros(())
        for part in self.parts:
            if part.name in values:
                total = total + self.weight(part, step) * values[part.name]
        return total

    def value(self, part: Weighted, step: Step) -> Tensor:
        """One term, before its weight; of one teacher among several, times how much that one counts."""
        seen = step if part.teacher is None else step.only(part.teacher)
        value: Tensor = part.term(seen)
        return value if part.teacher is None or part.term.weighs_samples else value * seen.shares().mean().detach()


class Teacher(Protocol):
    """A source of answers to imitate.

    module: the network, where there is one to look at. taps: which features it tells.
    """

    module: nn.Module | None
    taps: tuple[str, ...]

    def see(self, batch: Batch) -> Out:
        """What it says of these samples; no gradient reaches it unless a generator plays."""

    def to(self, device: torch.device) -> None:
        """Move to the device that trains."""

    def after(self, epoch: int) -> None:
        """Called at the end of each epoch: averages and snapshots refresh themselves here."""

    def stepped(self) -> None:
        """Called after each update of the student."""

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint must hold, so that a resumed training goes on with the same teacher."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


class Samples(Protocol):
    """A source of samples: a loader, generated or optimised images, a pool."""

    def begin(self, epoch: int) -> int:
        """Start an epoch; the order depends on the epoch and the seed alone. Returns its number of rounds."""

    def next(self, player: Player) -> Batch:
        """The next batch for this player, on its device."""

    def probe(self) -> Batch:
        """A few samples to see shapes by, whatever epoch it is."""


@runtime_checkable
class Changing(Protocol):
    """Samples that change as training goes on, so that a checkpoint holds how far they are."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(kw_only=True)
class Player:
    """Something with an optimiser. In a round each player takes `steps` steps, in order.

    module: what is trained and saved. learner: what is shown the batch as the student; the same unless an opponent
    plays. teachers: whom it looks at. weigher: how much each of several teachers counts for each sample, (teachers,
    batch); None: all alike. compiled: what is called in place of the learner and its taps: it computes the same,
    faster.
    """

    name: str
    module: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    learner: nn.Module
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    weigher: Callable[[Sequence[Out], Batch], Tensor] | None = None
    compiled: Callable[[Tensor], Out] | None = None
    steps: int = 1
    clip_norm: float | None = None
