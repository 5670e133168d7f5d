"""Steps made of features that a test chooses, and networks of three stages for losses that need whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgepress.stages.distill.losses import make
from edgepress.stages.distill.nouns import Batch, Objective, Out, Step, Term
from edgepress.stages.distill.settings import Loss
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.distill.wiring import wire

Pairs = Sequence[tuple[Tensor, Tensor]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step_of(pairs: Pairs, *, labels: Tensor | None = None, progress: float = 0.0, **more: Any) -> Step:
    """The student's and the teacher's features at taps "0", "1", ..."""
    count = len(pairs[0][0])
    return Step(
        batch=Batch(x=torch.zeros(count, 1), y=labels),
        student=Out(logits=more.pop("student", noise(count, 3, seed=8)), feats={str(i): s for i, (s, _) in enumerate(pairs)}),
        teachers={"t": Out(logits=more.pop("teacher", noise(count, 3, seed=9)), feats={str(i): t for i, (_, t) in enumerate(pairs)})},
        progress=progress,
        **more,
    )  # fmt: skip


def term_for(name: str, pairs: Pairs, **options: Any) -> Any:
    """The loss, built for features like these."""
    torch.manual_seed(0)
    term = make(name, options)
    term.pairs = tuple((str(index), str(index)) for index in range(len(pairs)))
    with torch.no_grad():
        term.build(step_of(pairs, labels=torch.zeros(len(pairs[0][0]), dtype=torch.int64)))
    return term


def value(name: str, pairs: Pairs, *, labels: Tensor | None = None, progress: float = 0.0, **options: Any) -> Tensor:
    """The loss of these features."""
    term: Term = term_for(name, pairs, **options)
    found: Tensor = term(step_of(pairs, labels=labels, progress=progress))
    return found


class Stages(nn.Module):
    """Three stages, each half as large and wider, with activations that are no modules; 8 x 8 images, 4 classes."""

    def __init__(self, *widths: int, classes: int = 4) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=1 if index == 0 else 2, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )
            for index, (inputs, outputs) in enumerate(zip((1, *widths), widths, strict=False))
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def stages(*widths: int, seed: int = 0) -> Stages:
    torch.manual_seed(seed)
    return Stages(*widths).eval()


def batch(count: int = 6, *, seed: int = 3) -> Batch:
    return Batch(x=noise(count, 1, 8, 8, seed=seed), y=torch.arange(count) % 4, index=torch.arange(count))


def wired(name: str, student: nn.Module, teacher: nn.Module, given: Batch, *, seed: int = 0, **loss: Any) -> Objective:
    return wire({name: Loss(**loss)}, learner=student, teachers={"t": Frozen(teacher)}, probe=given, seed=seed)


def objective_and_step(
    name: str, student: nn.Module, teacher: nn.Module, given: Batch, *, progress: float = 0.0, **loss: Any
) -> tuple[Objective, Step]:
    """The loss, wired, and a step of training with it."""
    from edgepress.stages.distill.watching import answer

    source = Frozen(teacher)
    objective = wire({name: Loss(**loss)}, learner=student, teachers={"t": source}, probe=given)
    student.train()
    seen = Step(
        batch=given, student=answer(student, given.x, objective.taps()), teachers={"t": source.see(given)},
        progress=progress, learner=student, models={"t": teacher},
    )  # fmt: skip
    return objective.train(), seen
