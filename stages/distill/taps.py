"""Where a network can be tapped, what passes there, and which taps of two networks belong together."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ...targets.errors import StageError, did_you_mean
from . import places
from .nouns import Pair
from .watching import Place, bare, first_tensor, logits_of, still

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")  # what attentions call it
CHOICE = re.compile(r"(?P<place>@\w+)(?:#(?P<which>-?\d+))?")


@dataclass(frozen=True, kw_only=True)
class Tap:
    """One place: its name, the module's kind, and the shape that passes, without the batch.

    The network itself comes last and has no name: the shape of its answer.
    """

    name: str
    kind: str
    shape: tuple[int, ...]


Outline = tuple[Tap, ...]


def outline(module: nn.Module, x: Tensor) -> Outline:
    """What every module says, in the order in which it is computed, from one pass without a trace.

    A module that is called again appears again, as `relu#1`, `relu#2` ... What does not begin with the batch is left
    out, and so is what is no tensor.
    """
    network = bare(module)
    found: list[Tap] = []
    calls: dict[str, int] = {}

    def note(name: str, part: nn.Module, passed: object) -> None:
        call = calls.get(name, 0)
        calls[name] = call + 1
        try:
            passed = first_tensor(passed, name) if name else logits_of(passed)
        except StageError:
            return
        if passed.ndim < 2:
            return
        if isinstance(part, nn.MultiheadAttention) and not part.batch_first:
            passed = passed.transpose(0, 1)
        if len(passed) == len(x):
            number = f"#{call}" if call else ""
            found.append(Tap(name=f"{name}{number}", kind=type(part).__name__, shape=tuple(passed.shape[1:])))

    handles = [
        part.register_forward_hook(lambda part, _given, passed, name=name: note(name, part, passed))
        for name, part in network.named_modules()
    ]
    try:
        with still(network):
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(found)


def resolve(
    wanted: str | Sequence[Pair], *, student: Outline | None, teacher: Outline | None, loss: str
) -> tuple[Pair, ...]:
    """Pairs of taps for a place such as `@stages`, or those that are named, checked.

    wanted: a place; `@stages#1` is the second pair of it and `@stages#-1` the last; a name that both networks have;
    or pairs. teacher: None for a loss that looks at the student alone; the second of each pair is then empty.
    student: None for one that looks at the teacher alone; then the first is.
    StageError: there is no such tap or place.
    """
    if isinstance(wanted, str) and wanted.startswith("@"):
        return _place(wanted, student, teacher, loss)
    pairs = ((wanted, wanted),) if isinstance(wanted, str) else tuple((mine, theirs) for mine, theirs in wanted)
    if student is None:
        pairs = tuple(("", theirs) for _, theirs in pairs)
    for mine, theirs in pairs:
        if student is not None:
            _refuse_unknown(mine, student, "student", loss)
        if teacher is not None:
            _refuse_unknown(theirs, teacher, "teacher", loss)
    return pairs


def classifier(module: nn.Module, x: Tensor) -> tuple[str, nn.Linear]:
    """The linear layer that gives the answer, and its name. StageError: there is none."""
    try:
        name = Place.of(places.pool(outline(module, x))).module
    except StageError as error:
        raise StageError(f"the network {error}") from None
    found = bare(module).get_submodule(name)
    if not isinstance(found, nn.Linear):
        raise StageError(f"the last layer, {name}, is of the kind {type(found).__name__}, not a torch.nn.Linear")
    return name, found


def heads_at(module: nn.Module, tap: str) -> int | None:
    """How many heads the attention has that a tap belongs to; None: neither it nor what holds it says so."""
    name = Place.of(tap).module
    while name:
        part = bare(module).get_submodule(name)
        for word in HEADS:
            value = getattr(part, word, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        name = name.rpartition(".")[0]
    return None


def _place(wanted: str, student: Outline | None, teacher: Outline | None, loss: str) -> tuple[Pair, ...]:
    found = CHOICE.fullmatch(wanted)
    place = places.PLACES.get(found["place"]) if found else None
    if found is None or place is None:
        known = did_you_mean(wanted.partition("#")[0], places.PLACES)
        raise StageError(f"the loss {loss}: no place is called {wanted!r}{known}")
    mine = _spots(place, student, "student", loss, found["place"]) if student is not None else None
    theirs = _spots(place, teacher, "teacher", loss, found["place"]) if teacher is not None else None
    if mine is not None and theirs is not None:
        joined = place.join(mine, theirs)
    else:
        joined = [(spot, places.NOWHERE) for spot in mine or ()] + [(places.NOWHERE, spot) for spot in theirs or ()]
    pairs: list[Pair] = []
    for one, other in _chosen(list(joined), found["which"], wanted, loss):
        pairs += itertools.zip_longest(one.names, other.names, fillvalue="")
    return tuple(pairs)


def _spots(place: places.Kind, found: Outline, whose: str, loss: str, called: str) -> Sequence[places.Spot]:
    try:
        return place.find(found)
    except StageError as error:
        raise StageError(f"the loss {loss}: {called}: the {whose} {error}") from None


def _chosen(
    couples: list[tuple[places.Spot, places.Spot]], which: str | None, wanted: str, loss: str
) -> list[tuple[places.Spot, places.Spot]]:
    """All, or the one that is asked for; counted from the deep end, the first stands in for those before it."""
    if which is None:
        return couples
    number = int(which)
    if number >= len(couples):
        raise StageError(f"the loss {loss}: {wanted}: there are {len(couples)} pairs, counted from #0")
    return [couples[max(number, -len(couples))]]


def _refuse_unknown(tap: str, found: Outline, whose: str, loss: str) -> None:
    names = list(dict.fromkeys(one.name.partition("#")[0] for one in found))
    name = Place.of(tap).module
    if name not in names:
        raise StageError(f"the loss {loss}: the {whose} has no module {name!r} to tap{did_you_mean(name, names)}")
