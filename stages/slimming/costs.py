"""What a network of given widths costs: exactly where it can be counted, by tables where it has to be measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from .cutting import Groups
from .groups import CONVS

Widths = Mapping[str, int]  # channels that are left, by group
Side = tuple[tuple[str, float], ...]  # groups that a side consists of, each with its share of the side for one channel


class Cost(Protocol):
    """Something that gets less when channels go, as a share of the unpruned network's."""

    def value(self, widths: Widths) -> float: ...

    def change(self, widths: Widths, then: Widths) -> float:
        """What giving some groups other widths adds; below zero: it saves."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A module with weights. into, out: what its sides consist of. macs: of one inference. within: blocks that it goes
    with."""

    name: str
    macs: int
    parameters: int
    into: Side
    out: Side
    within: tuple[str, ...] = ()

    @property
    def groups(self) -> set[str]:
        return {*(name for name, _ in (*self.into, *self.out)), *self.within}

    def left(self, widths: Widths, full: Widths) -> tuple[float, float, float]:
        """The shares of its two sides that are there, and whether it is."""
        there = all(widths[name] for name in self.within)
        return left(self.into, widths, full), left(self.out, widths, full), float(there)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Multiply-accumulates or parameters: in each layer the product of what is left of its two sides."""

    layers: Sequence[Layer]
    what: Literal["macs", "parameters"]
    full: Widths

    @cached_property
    def total(self) -> int:
        return sum(getattr(layer, self.what) for layer in self.layers)

    @cached_property
    def _of(self) -> dict[str, list[Layer]]:
        return by_group(self.layers, self.full)

    def value(self, widths: Widths) -> float:
        return sum(self._one(layer, widths) for layer in self.layers) / self.total

    def change(self, widths: Widths, then: Widths) -> float:
        after = {**widths, **then}
        return sum(self._one(one, after) - self._one(one, widths) for one in touched(self._of, then)) / self.total

    def _one(self, layer: Layer, widths: Widths) -> float:
        amount: int = getattr(layer, self.what)
        return amount * math.prod(layer.left(widths, self.full))


@dataclass(frozen=True, kw_only=True)
class Tabled:
    """Measured time: what each group saves alone, from a table, less what two groups of one layer would save twice.

    saves: by group, the share of the whole that it saves at a width. together: how much of the whole's time goes with
    multiply-accumulates; where both sides of a layer shrink, their savings overlap by that part of their product, and
    where it goes with its block, by that part of what they saved.
    """

    layers: Sequence[Layer]
    full: Widths
    saves: Mapping[str, Callable[[int], float]]
    together: float
    _macs: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_macs", sum(layer.macs for layer in self.layers))

    @cached_property
    def _of(self) -> dict[str, list[Layer]]:
        return by_group(self.layers, self.full)

    def value(self, widths: Widths) -> float:
        alone = sum(self.saves[name](width) for name, width in widths.items())
        return 1.0 - alone + sum(self._overlap(layer, widths) for layer in self.layers)

    def change(self, widths: Widths, then: Widths) -> float:
        after = {**widths, **then}
        saved = sum(self.saves[name](width) - self.saves[name](widths[name]) for name, width in then.items())
        layers = touched(self._of, then)
        return sum(self._overlap(layer, after) - self._overlap(layer, widths) for layer in layers) - saved

    def _overlap(self, layer: Layer, widths: Widths) -> float:
        shares = layer.left(widths, self.full)
        twice = sum(1 - share for share in shares) - (1 - math.prod(shares))
        return self.together * layer.macs / self._macs * twice


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """Another cost, whose savings came out larger or smaller when they were measured. start: before anything went."""

    cost: Cost
    start: float = 1.0
    factor: float = 1.0

    def value(self, widths: Widths) -> float:
        return self.corrected(self.cost.value(widths))

    def corrected(self, uncorrected: float) -> float:
        """What the other cost's value is taken for."""
        return self.start * (1 - self.factor * (1 - uncorrected))

    def uncorrected(self, corrected: float) -> float:
        """The other way round."""
        return 1 - (1 - corrected / self.start) / self.factor

    def change(self, widths: Widths, then: Widths) -> float:
        return self.start * self.factor * self.cost.change(widths, then)


@dataclass(frozen=True, kw_only=True)
class Given:
    """Another cost, where the widths of some groups are decided already."""

    cost: Cost
    widths: Widths

    def value(self, widths: Widths) -> float:
        return self.cost.value({**self.widths, **widths})

    def change(self, widths: Widths, then: Widths) -> float:
        return self.cost.change({**self.widths, **widths}, then)


def left(side: Side, widths: Widths, full: Widths) -> float:
    """The share of a side that is still there."""
    return 1.0 - sum(share * (full[name] - widths[name]) for name, share in side)


def touched(of: Mapping[str, list[Layer]], then: Widths) -> list[Layer]:
    """The layers that some groups have a part in, each once."""
    if len(then) == 1:
        return of[next(iter(then))]
    return list({layer.name: layer for name in then for layer in of[name]}.values())


def by_group(layers: Sequence[Layer], full: Widths) -> dict[str, list[Layer]]:
    """The layers that each group has a side of."""
    return {name: [layer for layer in layers if name in layer.groups] for name in full}


def layers_of(module: nn.Module, groups: Groups, example: Tensor) -> list[Layer]:
    """Every layer with weights, and which groups its sides consist of."""
    macs = macs_by_layer(module, example)
    found = []
    for name, part in module.named_modules():
        own = sum(parameter.numel() for parameter in part.parameters(recurse=False))
        if not own:
            continue
        sides: dict[str, list[tuple[str, float]]] = {"in": [], "out": [], "both": []}
        for group in groups.found.values():
            for edge in group.edges:
                if edge.module == name:
                    share = len(edge.places) / group.width / _side_width(part, edge.side, edge.dim)
                    sides[edge.side].append((group.name, share))
        out = (*sides["out"], *sides["both"])
        within = tuple(one.name for one in groups.found.values() if one.is_block and name.startswith(f"{one.name}."))
        found.append(
            Layer(name=name, macs=macs.get(name, 0), parameters=own, into=tuple(sides["in"]), out=out, within=within)
        )
    return found


def macs_by_layer(module: nn.Module, example: Tensor) -> dict[str, int]:
    """Multiply-accumulates of convolutions and linear layers for one input, by name."""
    found: dict[str, int] = {}

    def hook(name: str) -> Callable[..., None]:
        def count(part: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            transposed = getattr(part, "transposed", False)  # there each input place meets the whole kernel
            seen = inputs[0] if transposed else output
            per_place = part.weight[0].numel() if part.weight.ndim > 1 else 1
            found[name] = found.get(name, 0) + seen.numel() // seen.shape[0] * per_place

        return count

    named = [(name, part) for name, part in module.named_modules() if isinstance(part, (nn.Linear, *CONVS))]
    handles = [part.register_forward_hook(hook(name)) for name, part in named]
    with torch.no_grad():
        module.eval()(example[:1])
    for handle in handles:
        handle.remove()
    return found


def _side_width(part: nn.Module, side: str, dim: int) -> int:
    weight = getattr(part, "weight", None)
    if not isinstance(weight, Tensor):
        own = next(part.parameters(recurse=False))
        return own.shape[dim]
    if isinstance(part, nn.Embedding):
        return part.embedding_dim
    if not isinstance(part, (nn.Linear, *CONVS)):
        return weight.shape[-1]
    transposed = isinstance(part, CONVS) and part.transposed
    return weight.shape[1 if (side == "in") != transposed else 0]
