"""Where a network can be tapped, what passes there, and which taps of two networks belong together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...targets.errors import StageError, did_you_mean
from .nouns import Pair
from .watching import Place


@dataclass(frozen=True, kw_only=True)
class Tap:
    """One place: the module's name, its kind, and the shape that passes, without the batch."""

    name: str
    kind: str
    shape: tuple[int, ...]


Outline = tuple[Tap, ...]


def outline(module: nn.Module, x: Tensor) -> Outline:
    """The outputs of every module in the order in which they are computed, from one pass without a trace."""
    found: list[Tap] = []

    def note(name: str, part: nn.Module, passed: object) -> None:
        value = passed[0] if isinstance(passed, (tuple, list)) and passed else passed
        if isinstance(value, Tensor) and value.ndim > 1:
            found.append(Tap(name=name, kind=type(part).__name__, shape=tuple(value.shape[1:])))

    handles = [
        part.register_forward_hook(lambda part, _given, passed, name=name: note(name, part, passed))
        for name, part in module.named_modules()
        if name
    ]
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
        module.train(was_training)
    return tuple(found)


def stages(found: Outline) -> tuple[Tap, ...]:
    """The last map before each change of height and width: the usual places for features."""
    maps = [tap for tap in found if len(tap.shape) == 3]
    ends = [one for one, after in itertools.pairwise(maps) if one.shape[1:] != after.shape[1:]]
    return (*ends, *maps[-1:])


def pool(module_outline: Outline) -> str:
    """What the last linear layer is given: the embedding of each sample."""
    linear = [tap for tap in module_outline if tap.kind == "Linear"]
    if not linear:
        raise StageError("the network has no linear layer at its end: name a tap for its embedding")
    return f"{linear[-1].name}:in"


def resolve(wanted: str | Sequence[Pair], *, student: Outline, teacher: Outline | None, loss: str) -> tuple[Pair, ...]:
    """Pairs of taps for a place such as `@stages`, or those that are named, checked.

    teacher: None for a loss that looks at the student alone; the second of each pair is then empty.
    StageError: there is no such tap or place.
    """
    if isinstance(wanted, str):
        return _place(wanted, student, teacher, loss)
    for mine, theirs in wanted:
        _refuse_unknown(mine, student, "student", loss)
        if teacher is not None:
            _refuse_unknown(theirs, teacher, "teacher", loss)
    return tuple((mine, theirs) for mine, theirs in wanted)


def _place(wanted: str, student: Outline, teacher: Outline | None, loss: str) -> tuple[Pair, ...]:
    if wanted == "@pool":
        return ((pool(student), pool(teacher) if teacher is not None else ""),)
    if wanted == "@stages":
        mine = [tap.name for tap in stages(student)]
        theirs = [tap.name for tap in stages(teacher)] if teacher is not None else [""] * len(mine)
        count = min(len(mine), len(theirs))  # from the deep end: the first stages differ most between networks
        return tuple(zip(mine[len(mine) - count :], theirs[len(theirs) - count :], strict=True))
    raise StageError(f"the loss {loss}: no place is called {wanted!r}{did_you_mean(wanted, ('@stages', '@pool'))}")


def _refuse_unknown(tap: str, found: Outline, whose: str, loss: str) -> None:
    names = [one.name for one in found]
    name = Place.of(tap).module
    if name not in names:
        raise StageError(f"the loss {loss}: the {whose} has no module {name!r} to tap{did_you_mean(name, names)}")
