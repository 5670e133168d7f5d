"""Channels that pass from one layer straight to the next, found by watching one forward pass.

For networks that torch-pruning's graph misreads: it follows everything or fails. Here whatever is not understood, such
as an addition, a split or a layer that somebody else reads too, ends a row, and what is left still can be pruned: inner
layers of residual branches, of mobile blocks and of transformers' MLPs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign,
)  # fmt: skip
POOLINGS: tuple[type[nn.Module], ...] = (
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample,
)  # fmt: skip
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)  # in eval mode
FUNCTIONS: frozenset[Any] = frozenset({
    F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh, F.softplus,
    torch.relu, torch.sigmoid, torch.tanh, Tensor.relu, Tensor.sigmoid, Tensor.tanh,
})  # fmt: skip
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Names of modules: who makes the channels, what they pass through with weights of their own, who reads them."""

    maker: str
    passed: tuple[str, ...]
    reader: str


@dataclass(frozen=True, kw_only=True)
class _Use:
    """Somebody was given a tensor. module: a layer, by name, or None where it is an operation of its own."""

    module: str | None
    function: Any
    gave: Tensor | None


@dataclass(kw_only=True)
class _Flow:
    """Who was given which tensor, by the tensor's identity. alive: keeps each tensor, so that identities stay apart."""

    uses: dict[int, list[_Use]] = field(default_factory=dict)
    gave: dict[str, list[Tensor]] = field(default_factory=dict)
    alive: list[Any] = field(default_factory=list)

    def add(self, taken: Any, use: _Use) -> None:
        for tensor in _tensors(taken):
            self.uses.setdefault(id(tensor), []).append(use)
            self.alive.append(tensor)
        self.alive.append(use.gave)


def rows(module: nn.Module, example: Tensor) -> list[Row]:
    """Every row of a network in eval mode. Layers that are called twice, or that give the answers, are in none."""
    watched = copy.deepcopy(module).eval()
    for part in watched.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]  # else what goes in and what comes out are one tensor
    flow, answers = _watch(watched, example[:1])
    parts: dict[str, Any] = dict(watched.named_modules())
    found = []
    for name, made in flow.gave.items():
        if len(made) == 1 and _makes(parts[name]):
            row = _follow(name, made[0], flow, parts, answers)
            if row is not None:
                found.append(row)
    readers = [row.reader for row in found]
    return [row for row in found if readers.count(row.reader) == 1]


def _watch(module: nn.Module, example: Tensor) -> tuple[_Flow, set[int]]:
    """What flows where in one forward pass, and the identities of what the network answers."""
    flow, inside = _Flow(), [0]
    handles: list[Any] = []
    for name, part in module.named_modules():
        if isinstance(part, ACTIVATIONS + POOLINGS + NOTHING) or _has_weights(part):
            handles += _hooked(name, part, flow, inside)

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            answer = function(*args, **(kwargs or {}))
            if not inside[0] and _tensors(answer):  # else a size or the like was asked for, and nothing flows
                flow.alive.append(answer)
                gave = answer if isinstance(answer, Tensor) else None
                flow.add((args, kwargs or {}), _Use(module=None, function=function, gave=gave))
            return answer

    try:
        with torch.no_grad(), Watch():
            answer = module(example)
    finally:
        for handle in handles:
            handle.remove()
    flow.alive.append(answer)
    return flow, {id(tensor) for tensor in _tensors(answer)}


def _hooked(name: str, part: nn.Module, flow: _Flow, inside: list[int]) -> list[Any]:
    def enter(_part: nn.Module, _taken: Any) -> None:
        inside[0] += 1

    def leave(_part: nn.Module, taken: Any, gave: Any) -> None:
        inside[0] -= 1
        if isinstance(gave, Tensor):
            flow.add(taken, _Use(module=name, function=None, gave=gave))
            flow.gave.setdefault(name, []).append(gave)

    return [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]


def _follow(name: str, made: Tensor, flow: _Flow, parts: Mapping[str, Any], answers: set[int]) -> Row | None:
    """Where the channels of a layer end up, if that is one place and everything on the way leaves them apart."""
    maker, now = parts[name], made
    passed: list[str] = []
    width = maker.out_features if isinstance(maker, nn.Linear) else maker.out_channels
    while id(now) not in answers:
        uses = [use for use in flow.uses.get(id(now), []) if not (use.gave is now and _is_nothing(use, parts))]
        use = uses[0] if len(uses) == 1 else None
        if use is None or use.gave is None:
            return None
        if use.module is None:
            if use.function not in FUNCTIONS:
                return None
        else:
            part = parts[use.module]
            if _has_weights(part) and len(flow.gave[use.module]) != 1:
                return None  # they are used twice
            if _reads(part, width, maker):
                return Row(maker=name, passed=tuple(passed), reader=use.module)
            if not _leaves_apart(part, width, maker):
                return None
            if _has_weights(part):
                passed.append(use.module)
        now = use.gave
    return None


def _leaves_apart(part: nn.Module, width: int, maker: nn.Module) -> bool:
    """Whether each channel that goes in comes out by itself. A linear layer's are the last dimension."""
    if isinstance(part, ACTIVATIONS + NOTHING):
        return True
    return not isinstance(maker, nn.Linear) and (isinstance(part, NORMS + POOLINGS) or _is_depthwise(part, width))


def _has_weights(part: nn.Module) -> bool:
    return isinstance(part, (nn.Linear, *CONVOLUTIONS, *NORMS))


def _makes(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) or (isinstance(part, CONVOLUTIONS) and part.groups == 1)


def _reads(part: Any, width: int, maker: nn.Module) -> bool:
    """Whether a layer reads channels one by one, in the dimension in which they were made."""
    if isinstance(maker, nn.Linear):
        return isinstance(part, nn.Linear) and part.in_features == width
    return isinstance(part, CONVOLUTIONS) and part.groups == 1 and part.in_channels == width


def _is_depthwise(part: Any, width: int) -> bool:
    return isinstance(part, CONVOLUTIONS) and part.groups == part.in_channels == part.out_channels == width > 1


def _is_nothing(use: _Use, parts: Mapping[str, Any]) -> bool:
    return use.module is not None and isinstance(parts[use.module], NOTHING)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for one in value.values() for tensor in _tensors(one)]
    if isinstance(value, (list, tuple)):
        return [tensor for one in value for tensor in _tensors(one)]
    return []
