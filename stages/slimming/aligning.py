"""Which blocks of a teacher a shallower student has: those that the teacher would miss most, in their order."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ...targets.errors import StageError
from ..structure import Gone
from .groups import CONVS
from .sensitivity import divergence

LISTS = (nn.Sequential, nn.ModuleList)  # what blocks are counted in
EVENLY = 1e-6  # of the harm: among blocks that are missed alike, those stay that are spread evenly

Harm = Callable[[str], float]  # what it does to the teacher's answers when a module is left out, by its name
Picks = Mapping[
    str, Sequence[str]
]  # children that stay, by list; lists are named as in the student, children as before


def shallower(student: nn.Module, teacher: nn.Module, images: Tensor | None) -> tuple[nn.Module, Picks]:
    """A copy of the teacher with as many blocks as the student has, and which those are.

    images: that tell what blocks are worth; none: those that are spread evenly stay. StageError: the student's modules
    are not the teacher's, or there are more of them.
    """
    picks: dict[str, list[str]] = {}
    harm = _even if images is None else _measured(teacher, images)
    _align(student, teacher, name="", before="", harm=harm, picks=picks)
    small = copy.deepcopy(teacher).eval()
    for name, kept in picks.items():  # outer lists come first, so that the inner ones have their new names
        part = small.get_submodule(name)
        names = [child for child, _ in student.get_submodule(name).named_children()]
        part._modules = {new: part._modules[old] for new, old in zip(names, kept, strict=True)}
    return small, picks


def _align(
    student: nn.Module, teacher: nn.Module, *, name: str, before: str, harm: Harm, picks: dict[str, list[str]]
) -> None:
    """Find out which children belong together. name, before: of the module in the student and in the teacher.

    StageError: they are not the same."""
    _compare(student, teacher, name)
    mine, theirs = dict(student.named_children()), dict(teacher.named_children())
    pairs = list(zip(mine, theirs, strict=False))
    if isinstance(student, LISTS) and isinstance(teacher, LISTS) and len(mine) != len(theirs):
        kept = _pick(mine, theirs, name=name, before=before, harm=harm)
        picks[name] = kept
        pairs = list(zip(mine, kept, strict=True))
    elif set(mine) != set(theirs):
        alone = sorted(set(mine) ^ set(theirs))
        where = "the student" if alone[0] in mine else "the teacher"
        raise StageError(f"{_join(name, alone[0])} is in {where} alone")
    elif list(mine) != list(theirs):
        pairs = [(child, child) for child in mine]
    for new, old in pairs:
        _align(mine[new], theirs[old], name=_join(name, new), before=_join(before, old), harm=harm, picks=picks)


def _pick(
    mine: Mapping[str, nn.Module], theirs: Mapping[str, nn.Module], *, name: str, before: str, harm: Harm
) -> list[str]:
    """Of a list of blocks those that the student has, in order, so that what is left out does least harm."""
    if len(mine) > len(theirs):
        raise StageError(f"{name} has {len(mine)} blocks in the student and {len(theirs)} in the teacher")
    ours, old = list(mine.items()), list(theirs.items())
    worth = [harm(_join(before, child)) for child, _ in old]
    most = max((one for one in worth if math.isfinite(one)), default=1.0) or 1.0
    best: list[list[tuple[float, tuple[str, ...]] | None]] = [[(0.0, ())] * (len(old) + 1)]
    for place, (new, part) in enumerate(ours):
        row: list[tuple[float, tuple[str, ...]] | None] = [None] * (len(old) + 1)
        for other, (child, candidate) in enumerate(old):
            row[other + 1] = row[other]
            so_far = best[place][other]
            if so_far is None or not _fits(part, candidate, new):
                continue
            apart = abs(place / max(1, len(ours) - 1) - other / max(1, len(old) - 1))
            value = so_far[0] + min(worth[other] / most, 2.0) - EVENLY * apart
            if (seen := row[other + 1]) is None or value > seen[0]:
                row[other + 1] = value, (*so_far[1], child)
        best.append(row)
    found = best[-1][-1]
    if found is None:
        raise StageError(f"the {len(mine)} blocks of {name} are not among the teacher's {len(theirs)}, in their order")
    return list(found[1])


def _fits(student: nn.Module, teacher: nn.Module, name: str) -> bool:
    try:
        _align(student, teacher, name=name, before="", harm=_even, picks={})
    except StageError:
        return False
    return True


def _compare(student: nn.Module, teacher: nn.Module, name: str) -> None:
    """Two modules themselves, without what lies in them."""
    shapes, before = _shapes(student), _shapes(teacher)
    if set(shapes) != set(before):
        raise StageError(
            f"{name or 'the network'} has {_words(shapes)} in the student and {_words(before)} in the teacher"
        )
    for key, mine in shapes.items():
        theirs = before[key]
        kernels = len(mine) if not isinstance(teacher, CONVS) else 2  # what comes after these is no channel
        wider = any(a > b for a, b in zip(mine, theirs, strict=False))
        if len(mine) != len(theirs) or mine[kernels:] != theirs[kernels:] or wider:
            raise StageError(
                f"{_join(name, key)} is {_by(mine)} in the student and {_by(theirs)} in the teacher: it can lose "
                "channels, and nothing else"
            )
    if isinstance(student, CONVS) and isinstance(teacher, CONVS) and student.stride != teacher.stride:
        strides = f"{student.stride[0]} in the student and {teacher.stride[0]} in the teacher"
        raise StageError(f"{name} has a stride of {strides}")


def _shapes(part: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of a module's own tensors."""
    own = (*part._parameters.items(), *part._buffers.items())
    return {key: tuple(value.shape) for key, value in own if value is not None}


def _measured(teacher: nn.Module, images: Tensor) -> Harm:
    with torch.no_grad():
        wanted = teacher.eval()(images)

    def harm(name: str) -> float:
        without = copy.deepcopy(teacher).eval()
        without.set_submodule(name, Gone())
        try:
            with torch.no_grad():
                got = without(images)
            return divergence(got, wanted) if got.shape == wanted.shape else math.inf
        except Exception:  # whatever a network does without one of its blocks: then it cannot be without it
            return math.inf

    return harm


def _even(_name: str) -> float:
    return 1.0


def _words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(sorted(shapes)) or "no weights"


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)
