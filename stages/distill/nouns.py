"""The nouns of the training core: what a model said, what a loss may look at, and who plays.

An Out is what a model said about a batch, a Step is everything that a Term may look at, a Term is one loss, a
Source brings teachers' answers or samples, and a Player is something with an optimiser.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from ...targets.errors import StageError, did_you_mean

Need = Literal["logits", "labels", "index", "teacher", "taps"]


@dataclass(frozen=True, kw_only=True)
class Out:
    """What a model said about a batch. logits: (batch, classes). feats: outputs of the tapped modules, by name."""

    logits: Tensor
    feats: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples as a Source gives them. x: normalised images. y: labels, or None. index: place in the data, or None."""

    x: Tensor
    y: Tensor | None = None
    index: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """Everything that a Term may look at. progress: 0 at the first step of training, 1 at the last."""

    batch: Batch
    student: Out
    teachers: Mapping[str, Out]
    progress: float

    def labels(self) -> Tensor:
        """The labels, where the term has declared that it needs them."""
        assert self.batch.y is not None, "a term without 'labels' in its needs asked for labels"
        return self.batch.y

    def teacher(self) -> Out:
        """The only teacher, or the first."""
        return next(iter(self.teachers.values()))


class Term(nn.Module):
    """One loss. It owns its parameters, if it has any, and leaves nothing in the student."""

    needs: ClassVar[frozenset[Need]] = frozenset({"logits"})

    def build(self, probe: Step) -> None:
        """Create what depends on shapes, once, from one batch. Most terms have nothing to create."""

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """The loss of this batch: one number with a gradient."""


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A term in an objective. weight: a factor; negative where a player wants the opposite."""

    name: str
    term: Term
    weight: float


class Objective(nn.Module):
    """A weighted sum of terms."""

    def __init__(self, parts: Sequence[Weighted]) -> None:
        super().__init__()
        self.parts = tuple(part for part in parts if part.weight != 0)
        self.terms = nn.ModuleDict({part.name: part.term for part in self.parts})
        if not self.parts:
            raise StageError("every loss weight is 0: there is nothing to learn. Give ce or kd a weight.")

    def needs(self) -> frozenset[Need]:
        """Everything that the terms need together."""
        return frozenset().union(*(part.term.needs for part in self.parts))

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each term's own value before its weight."""
        values = {part.name: part.term(step) for part in self.parts}
        total = torch.stack([part.weight * values[part.name] for part in self.parts]).sum()
        return total, values


class Teacher(Protocol):
    """A source of answers to imitate."""

    def see(self, batch: Batch) -> Out:
        """What it says of these samples; no gradient reaches it unless a generator plays."""

    def to(self, device: torch.device) -> None:
        """Move to the device that trains."""

    def after(self, epoch: int) -> None:
        """Called at the end of each epoch: averages and snapshots refresh themselves here."""


class Samples(Protocol):
    """A source of samples: a loader, generated or optimised images, a pool."""

    def begin(self, epoch: int) -> int:
        """Start an epoch; the order depends on the epoch and the seed alone. Returns its number of rounds."""

    def next(self, player: Player) -> Batch:
        """The next batch for this player, on its device."""


@dataclass(kw_only=True)
class Player:
    """Something with an optimiser. In a round each player takes `steps` steps, in order."""

    name: str
    module: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    steps: int = 1
    clip_norm: float | None = None


@contextmanager
def watch(module: nn.Module, taps: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect outputs of the named modules while the block runs; the hooks live no longer than that.

    StageError: a tap names no module, or its output was changed in place after it was seen.
    """
    modules = dict(module.named_modules())
    for tap in taps:
        if tap not in modules:
            raise StageError(f"no module {tap!r} to tap{did_you_mean(tap, modules)}")
    seen: dict[str, Tensor] = {}
    versions: dict[str, int] = {}

    def keep(name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = output
        versions[name] = output._version

    handles = [modules[tap].register_forward_hook(partial(keep, tap)) for tap in taps]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
    for name, value in seen.items():
        if value._version != versions[name]:
            raise StageError(
                f"the output of {name} is changed in place after the tap saw it; "
                "set inplace=False on the activation that follows it, or tap that one"
            )
