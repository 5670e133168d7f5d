"""What a group of channels is, and how a network loses some of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..structure import Gone

Kept = Mapping[str, Sequence[int]]  # channels that stay, by group; a group that is not named keeps all


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One side of a module that loses what its group loses. places[i] belongs to the group's channel channels[i]."""

    module: str
    side: Literal["in", "out", "both"]
    places: tuple[int, ...]
    channels: tuple[int, ...]
    cut: Callable[[Any, list[int]], Any]  # torch-pruning's own, for this kind of module
    dim: int

    def lost(self, gone: set[int]) -> list[int]:
        return [place for place, channel in zip(self.places, self.channels, strict=True) if channel in gone]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels that can only go together. kind: groups of one kind are made alike and cost alike.

    widths: what may be left of it, the widest first, without the full width. is_block: not channels but a whole
    residual block, which is there (1) or not (0). inside: the block that all of it lies in. counts: attributes that
    hold how many there are: module, name, and the value for one.
    """

    name: str  # of the module that makes the channels, the first one
    width: int
    widths: tuple[int, ...]
    edges: tuple[Edge, ...]
    kind: str
    is_block: bool = False
    inside: str | None = None
    counts: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Every group that can be pruned, by name; and why the others cannot."""

    found: Mapping[str, Group]
    refused: Mapping[str, str]

    def full(self) -> dict[str, int]:
        """The widths before anything is removed."""
        return {name: group.width for name, group in self.found.items()}


def slim(module: nn.Module, groups: Iterable[Group], kept: Kept) -> nn.Module:
    """A copy without the channels, and the blocks, that are not kept, in eval mode."""
    groups = list(groups)
    small = copy.deepcopy(module)
    parts: dict[str, Any] = dict(small.named_modules())
    gone: dict[tuple[str, str], tuple[Edge, set[int]]] = {}
    for group in groups:
        away = set(range(group.width)) - set(kept.get(group.name, range(group.width)))
        for edge in group.edges if away else ():
            _, places = gone.setdefault((edge.module, edge.side), (edge, set()))
            places.update(edge.lost(away))
    for (name, _), (edge, places) in gone.items():
        if name in parts:
            _set_dim(edge)
            edge.cut(parts[name], sorted(places))
        else:
            _cut_parameter_(small, name, edge.dim, sorted(places))
    for group in groups:
        for name, attribute, each in group.counts if group.name in kept else ():
            setattr(parts[name], attribute, each * len(kept[group.name]))
    for group in groups:
        if group.is_block and not kept.get(group.name, [0]):
            small.set_submodule(group.name, Gone())
    for part in small.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                parameter.grad = None
    return small.eval().requires_grad_(True)


def first_channels(groups: Groups, widths: Mapping[str, int]) -> dict[str, list[int]]:
    """Any channels at all, for what does not depend on which."""
    return {name: list(range(width)) for name, width in widths.items() if width < groups.found[name].width}


def _set_dim(edge: Edge) -> None:
    # torch-pruning (1.6) hands the dimension of a LayerNorm to its pruner through this attribute
    edge.cut.__self__.pruning_dim = edge.dim  # type: ignore[attr-defined]


def _cut_parameter_(module: nn.Module, name: str, dim: int, places: Sequence[int]) -> None:
    """A parameter of no layer, such as positions."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    old = owner._parameters[leaf]
    assert old is not None
    left = torch.tensor(sorted(set(range(old.shape[dim])) - set(places)))
    owner._parameters[leaf] = nn.Parameter(old.detach().index_select(dim, left), requires_grad=old.requires_grad)
