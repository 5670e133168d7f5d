"""Which modules are meant by `@stages`, `@map`, `@pool` and the like, told from shapes and kinds alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...targets.errors import StageError

if TYPE_CHECKING:
    from .taps import Outline, Tap

TOKEN_STAGES = 4  # as many as most convolutional networks have
PROJECTIONS = (
    ("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"), ("wq", "wk", "wv"), ("q", "k", "v"),
)  # fmt: skip
FUSED = ("qkv", "qkv_proj", "in_proj", "Wqkv", "to_qkv", "c_attn", "query_key_value")
RECTIFIERS = ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "SiLU", "GELU", "Hardswish")


@dataclass(frozen=True)
class Spot:
    """One element of a place: a tap, or the few that belong together. size: height and width, of maps."""

    names: tuple[str, ...]
    size: tuple[int, ...] = ()


NOWHERE = Spot(())  # what a spot is paired with where one of the two networks is not looked at
Spots = Sequence[Spot]
Join = Callable[[Spots, Spots], Iterable[tuple[Spot, Spot]]]


@dataclass(frozen=True)
class Kind:
    """A place: how it is found in one network, how two networks' are joined, and what it is, in words."""

    find: Callable[[Outline], Spots]
    join: Join
    what: str


def stages(found: Outline) -> tuple[Tap, ...]:
    """The last map of each height and width, from modules as far outside as possible; of tokens every k-th block.

    Maps of one pixel are left out, squeeze-and-excitation and pooling among them, and so is a map that is the answer.
    """
    maps = _maps(found)
    repeated = blocks(found)
    if repeated and len({tap.shape[1:] for tap in maps}) < 2:  # the only maps of a ViT are its patches
        return _thinned(repeated, TOKEN_STAGES)
    if not maps:
        return ()
    outside: dict[tuple[int, ...], int] = {}
    for tap in maps:
        outside[tap.shape[1:]] = min(_depth(tap), outside.get(tap.shape[1:], _depth(tap)))
    kept = [tap for tap in maps if _depth(tap) == outside[tap.shape[1:]]]
    ends = [one for one, after in itertools.pairwise(kept) if one.shape[1:] != after.shape[1:]]
    return (*ends, kept[-1])


def blocks(found: Outline) -> tuple[Tap, ...]:
    """The transformer's blocks: modules of one kind, side by side, that pass tokens on. Empty: there are none."""
    holders = {tap.name.rpartition(".")[0] for tap in found}
    groups: dict[tuple[str, str], list[Tap]] = {}
    for tap in found:
        if len(tap.shape) == 2 and tap.name and tap.name in holders:
            groups.setdefault((tap.name.rpartition(".")[0], tap.kind), []).append(tap)
    if not groups:
        return ()
    ranked = sorted(groups.values(), key=_likeness)
    return tuple(ranked[-1])


def pool(found: Outline) -> str:
    """What the last linear layer is given: the embedding of each sample, or of each token."""
    linear = [tap for tap in found if tap.kind.endswith("Linear") and tap.name]
    answers = [tap for tap in linear if tap.shape == found[-1].shape]
    if not linear:
        raise StageError("has no linear layer at its end: name a tap for its embedding")
    return f"{(answers or linear)[-1].name}:in"


def _likeness(group: Sequence[Tap]) -> tuple[bool, int, int]:
    """How much a group looks like a transformer's blocks: numbered, far outside, many."""
    return group[0].name[-1].isdigit(), -_depth(group[0]), len(group)


def _stage_spots(found: Outline) -> Spots:
    ends = stages(found)
    if not ends:
        raise StageError("has neither feature maps nor transformer blocks: name taps")
    return [Spot((tap.name,), _size(tap)) for tap in ends]


def _map_spots(found: Outline) -> Spots:
    return _stage_spots(found)[-1:]


def _pool_spots(found: Outline) -> Spots:
    return [Spot((pool(found),))]


def _block_spots(found: Outline) -> Spots:
    repeated = blocks(found)
    if not repeated:
        raise StageError("has no transformer blocks side by side: name taps, or take @stages")
    return [Spot((tap.name,)) for tap in repeated]


def _embedding_spots(found: Outline) -> Spots:
    return [Spot((f"{_block_spots(found)[0].names[0]}:in",))]


def _edge_spots(found: Outline) -> Spots:
    """The first two blocks and the last."""
    spots = _block_spots(found)
    if len(spots) < 3:
        raise StageError(f"has {len(spots)} transformer blocks; the first two and the last are wanted")
    return [*spots[:2], spots[-1]]


def _before_spots(found: Outline) -> Spots:
    """Of each stage what its last activation is given, or what its last norm says where the activation is no module."""
    order = {tap.name: place for place, tap in enumerate(found)}
    spots, begin = [], 0
    for end in stages(found):
        within = [tap for tap in found[begin : order[end.name] + 1] if tap.shape == end.shape]
        begin = order[end.name] + 1
        rectified = [_given(tap.name) for tap in within if tap.kind in RECTIFIERS]
        normed = [tap.name for tap in within if "Norm" in tap.kind]
        last = rectified[-1:] or normed[-1:] or [end.name]
        spots.append(Spot((last[0],), _size(end)))
    if not spots:
        raise StageError("has neither feature maps nor transformer blocks: name taps before activations")
    return spots


def _norm_spots(found: Outline) -> Spots:
    """What batch norms are given: `:in`, since that is what their running statistics are of."""
    spots = [Spot((_given(tap.name),), _size(tap)) for tap in found if "BatchNorm" in tap.kind and tap.name]
    if not spots:
        raise StageError("has no batch norms: name taps")
    return spots


def _attention_spots(count: int) -> Callable[[Outline], Spots]:
    """Queries and keys of each attention, or those and the values."""

    def find(found: Outline) -> Spots:
        names = {tap.name for tap in found}
        spots = []
        for tap in found:
            holder, _, last = tap.name.rpartition(".")
            before = f"{holder}." if holder else ""
            if len(tap.shape) != 2:
                continue
            if tap.kind == "MultiheadAttention" or last in FUSED:
                spots.append(Spot(tuple(f"{tap.name}:{side}" for side in "qkv"[:count])))
            spots += [
                Spot(tuple(f"{before}{name}" for name in three[:count]))
                for three in PROJECTIONS
                if last == three[0] and all(f"{before}{name}" in names for name in three)
            ]
        if not spots:
            raise StageError("has no attention whose queries and keys are known by name: name their taps")
        return spots

    return find


def _from_the_deep_end(mine: Spots, theirs: Spots) -> Iterable[tuple[Spot, Spot]]:
    """The last with the last, and so on; by height and width where the last are alike and the other lacks none."""
    few, many = sorted(([spot.size for spot in spots] for spots in (mine, theirs)), key=len)
    distinct = all(len(set(sizes)) == len(sizes) for sizes in (few, many))
    if all(few) and distinct and few[-1] == many[-1] and set(few) <= set(many):
        by_size = {spot.size: spot for spot in theirs}
        return [(spot, by_size[spot.size]) for spot in mine if spot.size in by_size]
    count = min(len(mine), len(theirs))
    return zip(mine[len(mine) - count :], theirs[len(theirs) - count :], strict=True)


def _uniform(mine: Spots, theirs: Spots) -> Iterable[tuple[Spot, Spot]]:
    """Evenly spread, the last with the last: of 4 and 12 the student's 1, 2, 3, 4 learn from 3, 6, 9, 12."""
    count = min(len(mine), len(theirs))
    return zip(_thinned(mine, count), _thinned(theirs, count), strict=True)


def _in_order(mine: Spots, theirs: Spots) -> Iterable[tuple[Spot, Spot]]:
    return zip(mine, theirs, strict=True)


PLACES: dict[str, Kind] = {
    "@stages": Kind(_stage_spots, _from_the_deep_end, "the last map of each height and width, or every k-th block"),
    "@preact": Kind(_before_spots, _from_the_deep_end, "the same before the last activation"),
    "@map": Kind(_map_spots, _in_order, "the last map before pooling, or the last block"),
    "@pool": Kind(_pool_spots, _in_order, "what the classifier is given"),
    "@norms": Kind(_norm_spots, _from_the_deep_end, "what batch norms are given"),
    "@hidden": Kind(_block_spots, _uniform, "what transformer blocks say"),
    "@edges": Kind(_edge_spots, _in_order, "what the first two blocks and the last one say"),
    "@embeddings": Kind(_embedding_spots, _in_order, "what the first transformer block is given"),
    "@att": Kind(_attention_spots(2), _uniform, "queries and keys of each attention"),
    "@qkv": Kind(_attention_spots(3), _uniform, "queries, keys and values of each attention"),
}


def _maps(found: Outline) -> list[Tap]:
    answer = found[-1].shape
    return [tap for tap in found if len(tap.shape) == 3 and math.prod(tap.shape[1:]) > 1 and tap.shape != answer]


def _size(tap: Tap) -> tuple[int, ...]:
    """Height and width; nothing for tokens."""
    return tap.shape[1:] if len(tap.shape) == 3 else ()


def _thinned(spots: Sequence[Any], count: int) -> tuple[Any, ...]:
    """So many of them, evenly spread, with the last."""
    total = len(spots)
    kept = min(count, total)
    return tuple(spots[-(-(place + 1) * total // kept) - 1] for place in range(kept))


def _depth(tap: Tap) -> int:
    return tap.name.count(".")


def _given(name: str) -> str:
    """The input of the same call: `relu#1` becomes `relu:in#1`."""
    module, mark, call = name.partition("#")
    return f"{module}:in{mark}{call}"
