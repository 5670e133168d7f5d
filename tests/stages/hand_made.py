"""Steps made by hand, for terms that look at features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from edgepress.stages.distill.nouns import Batch, Out, Step, Term

OneTerm = TypeVar("OneTerm", bound=Term)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seen(
    student: Tensor | Sequence[Tensor],
    teacher: Tensor | Sequence[Tensor],
    *,
    y: Tensor | None = None,
    index: Tensor | None = None,
    mask: Tensor | None = None,
    logits: tuple[Tensor, Tensor] | None = None,
) -> Step:
    """A step in which the taps 0, 1, ... of both networks saw these features."""
    mine = [student] if isinstance(student, Tensor) else list(student)
    theirs = [teacher] if isinstance(teacher, Tensor) else list(teacher)
    said = logits or (torch.zeros(len(mine[0]), 2), torch.zeros(len(mine[0]), 2))
    return Step(
        batch=Batch(x=torch.zeros(len(said[0]), 1), y=y, index=index, mask=mask),
        student=Out(logits=said[0], feats={str(i): value for i, value in enumerate(mine)}),
        teachers={"teacher": Out(logits=said[1], feats={str(i): value for i, value in enumerate(theirs)})},
        progress=0.0,
    )


def built(term: OneTerm, step: Step) -> OneTerm:
    """The term after wiring: its pairs set, its adapters made."""
    term.pairs = tuple((tap, tap) for tap in step.student.feats)
    torch.manual_seed(0)
    term.build(step)
    return term


def gradient(term: Term, student: Tensor, teacher: Tensor, **rest: Tensor) -> Tensor:
    """The gradient that the term sends to the student's features; it and the loss must be finite."""
    leaf = student.clone().requires_grad_()
    value = term(seen(leaf, teacher, **rest))  # type: ignore[arg-type]
    value.backward()
    assert torch.isfinite(value)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    return leaf.grad
