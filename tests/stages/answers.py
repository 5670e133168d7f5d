"""Steps made by hand, for terms that look at answers alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgepress.stages.distill.nouns import Batch, Out, Step, Term


def logits(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def told(
    student: Tensor,
    teacher: Tensor | Mapping[str, Tensor],
    *,
    y: Tensor | None = None,
    mask: Tensor | None = None,
    trust: Tensor | None = None,
    epoch: float = 0.0,
) -> Step:
    """A step in which student and teachers gave these answers."""
    teachers = {"teacher": teacher} if isinstance(teacher, Tensor) else teacher
    return Step(
        batch=Batch(x=torch.zeros(len(student), 1), y=y, mask=mask),
        student=Out(logits=student),
        teachers={name: Out(logits=said) for name, said in teachers.items()},
        progress=0.0,
        epoch=epoch,
        trust=trust,
    )


def value(term: Term, step: Step) -> Tensor:
    """The term after it has seen the shapes."""
    torch.manual_seed(0)
    term.build(step)
    loss: Tensor = term(step)
    return loss


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """The textbook divergence of probabilities, row by row."""
    return (teacher * (teacher / student).log()).sum(-1)
