"""Even out the channels between two layers, so that one range suits them all; the float answers stay the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from .layers import ActivationRounding, RoundedLayer
from .prepare import rounded_layers

MOST = 32.0  # a channel is scaled by no more, either way: a dead one would take the weights behind it along
# What gives `a` times the answer for `a` times the input, a above 0; a ReLU6 does not.
HOMOGENEOUS = (nn.ReLU, nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, ActivationRounding)
HOMOGENEOUS_FUNCTIONS = {torch.relu, torch.nn.functional.relu, "relu", "relu_"}


def equalise_(prepared: nn.Module) -> int:
    """Scale the channels between neighbouring layers (Nagel et al., 2019, arXiv:1906.04721, section 4.1).

    prepared: traced; each pair is a rounded layer, whatever scales with its input, and the only layer behind. Returns
    how many pairs there were. Ranges are to be observed anew.
    """
    if not isinstance(prepared, fx.GraphModule):
        return 0
    layers = rounded_layers(prepared)
    pairs = [(layers[first], layers[second]) for first, second in _pairs(prepared, set(layers))]
    with torch.no_grad():
        return sum(_even_out_(first, second) for first, second in pairs)


def _pairs(prepared: fx.GraphModule, names: set[str]) -> list[tuple[str, str]]:
    parts: dict[str, Any] = dict(prepared.named_modules())
    calls = [str(node.target) for node in prepared.graph.nodes if node.op == "call_module"]
    found = []
    for node in prepared.graph.nodes:
        if node.op != "call_module" or str(node.target) not in names:
            continue
        last = node
        while len(last.users) == 1 and _scales(follower := next(iter(last.users)), parts):
            last = follower
        users = list(last.users)
        if len(users) == 1 and users[0].op == "call_module" and str(users[0].target) in names:
            pair = str(node.target), str(users[0].target)
            if all(calls.count(name) == 1 for name in pair):
                found.append(pair)
    return found


def _scales(node: fx.Node, parts: dict[str, Any]) -> bool:
    if node.op == "call_module":
        return isinstance(parts[str(node.target)], HOMOGENEOUS)
    return node.op in ("call_function", "call_method") and node.target in HOMOGENEOUS_FUNCTIONS


def _even_out_(first: RoundedLayer, second: RoundedLayer) -> bool:
    weight, _ = first.folded()
    inputs = _by_input(second)
    if inputs is None or len(inputs) != len(weight):
        return False
    made, taken = weight.abs().flatten(1).amax(1), inputs.abs().flatten(1).amax(1)
    there = (made > 0) & (taken > 0)
    scale = torch.where(there, (made / taken.clamp(min=1e-12)).sqrt(), torch.ones_like(made))
    scale = scale / scale.log().mean().exp()  # as a whole the layer keeps its size
    scale = scale.clamp(1 / MOST, MOST)
    if first.norm is not None:
        first.norm.weight.div_(scale)
        first.norm.bias.div_(scale)
    else:
        first.layer.weight.div_(scale.reshape(-1, *[1] * (first.layer.weight.ndim - 1)))
        if first.layer.bias is not None:
            first.layer.bias.div_(scale)
    inputs.mul_(scale.reshape(-1, *[1] * (inputs.ndim - 1)))  # a view: the second layer's own weights
    return True


def _by_input(layer: RoundedLayer) -> Tensor | None:
    """A view of a layer's weights with the input channels first; None where channels share their weights."""
    weight: Tensor = layer.layer.weight
    groups = int(getattr(layer.layer, "groups", 1))
    if groups == 1:
        return weight.transpose(0, 1)
    return weight if weight.shape[1] == 1 and groups == len(weight) else None
