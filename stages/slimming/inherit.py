"""Start a slimmer or shallower student from its teacher's weights: the channels and blocks that matter most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...targets.errors import StageError
from ..artifact import Context
from ..data import loader
from ..evaluation import quality
from ..prune import Prune
from ..unpacking import packed_state, unpacked
from .aligning import Picks, shallower
from .cutting import Edge, Group, Groups, slim
from .groups import AGREES, CONVS, find_groups, trial, untried_groups
from .importance import Loss
from .sensitivity import MOST
from .setup import ranked

ANY = "teacher"  # whoever teaches
WAY_OUT = "Give a student that is the teacher with fewer channels or blocks, or leave out student.initialise"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a student lies in its teacher. teacher: without the blocks that the student has not, named as the student
    names them. blocks: that are left, by list. groups: of which the student has fewer channels; widths: how many."""

    teacher: nn.Module
    blocks: Picks
    groups: Groups
    widths: Mapping[str, int]


def inherit_(student: nn.Module, teacher: nn.Module, context: Context, loss: Loss) -> dict[str, Any]:
    """Give the student the teacher's weights; the facts for the report. StageError: they are not the same layers.

    Channels are ranked as pruning ranks them: to first order, on training images where there are any.
    """
    split = context.data.train or context.data.val
    batch = next(iter(loader(split, batch_size=MOST, shuffle=True, seed=context.seed, epoch=0)))[0]
    images = context.data.preprocessing.normalize(batch)
    found = fit(student, teacher, images)
    seen_by_teachers = context.data.train is None or context.data.train.teacher_pixels is None
    how = Prune(importance="auto" if seen_by_teachers else "magnitude")
    fewer = found.groups.found
    kept = {}
    if fewer:
        importance = ranked(how, found.teacher, found.groups, context, loss)
        kept = {name: importance.best(name, found.widths[name]) for name in fewer}
    small = slim(found.teacher, fewer.values(), kept)
    student.load_state_dict(packed_state(small))
    if not _answers_alike(student, small, images[:2]):
        context.note(
            "the student has the teacher's weights and computes something else with them: is its number of heads, its "
            "activation or its stride another one?"
        )
    return {
        "blocks": {name: list(names) for name, names in found.blocks.items()},
        "channels": {name: [found.widths[name], group.width] for name, group in fewer.items()},
        "validation_accuracy": quality(student, context.data.val, context.data),
    }


def fit(student: nn.Module, teacher: nn.Module, images: Tensor, *, measured: bool = True) -> Fit:
    """How the student lies in the teacher. measured: the blocks that stay are chosen by what the teacher answers.

    StageError: it does not, and why.
    """
    try:
        base, blocks = shallower(student, teacher, images if measured else None)
        mine, base = unpacked(student, images[:1]), unpacked(base, images[:1])
        every, refused = untried_groups(base, images[:1], multiple=1)
        widths = {group.name: _width(group, mine, base) for group in every}
        groups = [group for group in every if widths[group.name] < group.width]
        problem = trial(base, groups, images[:1], widths) if groups else None
        if problem:
            raise StageError(problem)
        kept = {group.name: range(widths[group.name]) for group in groups}
        _compare(mine, slim(base, groups, kept), base, images[:1])
    except StageError as error:
        raise StageError(f"the student cannot start from the teacher's weights: {error}. {WAY_OUT}") from None
    found = {group.name: group for group in groups}
    return Fit(teacher=base, blocks=blocks, groups=Groups(found=found, refused=refused), widths=widths)


def forebear(wanted: str, taught: Mapping[str, nn.Module | str], *, known: Mapping[str, nn.Module]) -> nn.Module:
    """Whose weights a student starts from: `teacher`, where there is one, a teacher's name, or a word.

    taught: the teachers. known: networks that are called by words. StageError: there is no such network.
    """
    if wanted in known:
        return known[wanted]
    named = {name: known.get(who) if isinstance(who, str) else who for name, who in taught.items()}
    networks = {name: who for name, who in named.items() if who is not None}
    if wanted == ANY and len(networks) == 1:
        return next(iter(networks.values()))
    if wanted in networks:
        return networks[wanted]
    names = ", ".join(dict.fromkeys([*([ANY] if len(networks) == 1 else []), *networks, *known]))
    what = f"{len(networks)} teachers have weights" if wanted == ANY else "no teacher is called so"
    raise StageError(f"student.initialise: {wanted}: {what}. Name one of {names}")


def _width(group: Group, student: nn.Module, teacher: nn.Module) -> int:
    """How many of a group's channels the student has, by a layer that makes them. StageError: no whole number."""
    edge = next((one for one in group.edges if one.side == "out" and _size(teacher, one) == len(one.places)), None)
    if edge is None:
        return group.width
    mine, theirs = _size(student, edge), _size(teacher, edge)
    if mine * group.width % theirs:
        what = f"{theirs // group.width} for each of {group.width} {'heads' if group.counts else 'channels'}"
        raise StageError(f"{edge.module} makes {mine} channels in the student, and the teacher's {theirs} are {what}")
    return mine * group.width // theirs


def _size(network: nn.Module, edge: Edge) -> int:
    """Channels of a layer's outputs."""
    part: Any = dict(network.named_modules()).get(edge.module)
    if isinstance(part, (nn.Linear, *CONVS)):
        return int(part.weight.shape[1 if isinstance(part, CONVS) and part.transposed else 0])
    return int(part.embedding_dim) if isinstance(part, nn.Embedding) else 0


def _compare(student: nn.Module, small: nn.Module, teacher: nn.Module, example: Tensor) -> None:
    """StageError: something has still another shape."""
    mine, made = student.state_dict(), small.state_dict()
    unlike = [key for key, value in mine.items() if value.shape != made[key].shape]
    if not unlike:
        return
    key = unlike[0]
    shapes = " and ".join(
        f"{'x'.join(map(str, one.shape))} in {who}"
        for one, who in ((mine[key], "the student"), (teacher.state_dict()[key], "the teacher"))
    )
    refused = find_groups(teacher, example, multiple=1, blocks=False).refused
    stay = "; ".join(f"{name} ({why})" for name, why in refused.items() if "outputs are the answers" not in why)
    cannot = f". Channels that cannot go: {stay}" if stay else ""
    raise StageError(f"{key} is {shapes}, and {len(unlike) - 1} more do not match{cannot}")


def _answers_alike(student: nn.Module, small: nn.Module, images: Tensor) -> bool:
    with torch.no_grad():
        got, wanted = student.eval()(images), small.eval()(images)
    return got.shape == wanted.shape and bool((got - wanted).abs().max() <= AGREES * wanted.abs().max() + 1e-6)
