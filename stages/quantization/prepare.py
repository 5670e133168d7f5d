"""Put rounding into a network where the scheme wants it."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ...targets.errors import UnfitError
from ..tensors import fill_
from .early import share_, sources
from .layers import ActivationRounding, RoundedByItself, RoundedLayer
from .learned import layer_for, rounding_for
from .nodes import (
    SIGMOID_FUNCTIONS,
    SIGMOIDS,
    behind_absorbed,
    comes_of,
    does,
    is_addition,
    is_gate,
    is_nonnegative,
    only_user,
)
from .scheme import Scheme

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# What is a value times a function of it, and is exported as that: the function.
GATED: dict[Any, Any] = {
    nn.SiLU: torch.sigmoid,
    nn.Hardswish: F.hardsigmoid,
    F.silu: torch.sigmoid,
    F.hardswish: F.hardsigmoid,
}
SUFFIX = "_rounding"
NOTHING = "no convolution or linear layer was found to quantise; is all of the model excluded?"


def prepare(module: nn.Module, scheme: Scheme) -> nn.Module:
    """A copy of the network that rounds as the scheme says; its ranges are still to be observed.

    Where torch cannot trace the network, each layer is rounded by itself: what lies between layers, such as batch norm
    or a residual addition, then stays in float. UnfitError: it has no layer to quantise.
    """
    graph_module = None if scheme.by_layer else _trace(module)
    if graph_module is None:
        return each_layer(module, scheme)
    _replace_layers_(graph_module, scheme)
    if scheme.every_edge:
        _spell_out_gates_(graph_module)
    rounded = {name for name, part in graph_module.named_modules() if isinstance(part, RoundedLayer)}
    if not rounded:
        raise UnfitError(NOTHING)
    _insert_roundings_(graph_module, scheme, rounded)
    if scheme.rounds_early:
        share_(graph_module, ActivationRounding)
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def roundings(module: nn.Module) -> list[ActivationRounding]:
    """Every place where an activation is rounded."""
    return [part for part in module.modules() if isinstance(part, ActivationRounding)]


def rounded_layers(module: nn.Module) -> dict[str, RoundedLayer]:
    """Every layer with rounded weights, by its name in the original network."""
    by_themselves = {
        f"{name}.rounded": name for name, part in module.named_modules() if isinstance(part, RoundedByItself)
    }
    found = {name: part for name, part in module.named_modules() if isinstance(part, RoundedLayer)}
    return {by_themselves.get(name, name): part for name, part in found.items()}


def rounding_before(module: nn.Module) -> dict[str, ActivationRounding]:
    """The rounding of what each rounded layer is given, by the layer's name."""
    if not isinstance(module, fx.GraphModule):
        alone = {name: part for name, part in module.named_modules() if isinstance(part, RoundedByItself)}
        return {name: part.before for name, part in alone.items()}
    layers, parts = rounded_layers(module), dict(module.named_modules())
    found = {}
    for node in module.graph.nodes:
        if node.op == "call_module" and str(node.target) in layers:
            given = node.args[0]
            while len(taken := sources(given, module)) == 1:
                given = taken[0]
            before = parts.get(str(given.target))
            if isinstance(before, ActivationRounding):
                found[str(node.target)] = before
    return found


def float_again(prepared: nn.Module, source: nn.Module) -> nn.Module:
    """A copy of the float network that `prepared` was made of, with the weights that it has come to."""
    twin = copy.deepcopy(source)
    inner: set[str] = set()
    layers = rounded_layers(prepared)
    names = {part: name for name, part in prepared.named_modules()}
    with torch.no_grad():
        for name, layer in layers.items():
            inner.add(f"{names[layer]}.")
            twin.get_submodule(name).load_state_dict(layer.layer.state_dict())
            if layer.norm is not None and layer.norm_name is not None:
                twin.get_submodule(layer.norm_name).load_state_dict(layer.norm.state_dict())
        wanted = twin.state_dict()
        rest = {
            key: value
            for key, value in prepared.state_dict().items()
            if key in wanted and not key.startswith(tuple(inner))
        }
        fill_(twin, rest, strict=False)
    return twin.eval()


def each_layer(module: nn.Module, scheme: Scheme) -> nn.Module:
    """A copy with every layer that has weights rounded by itself, whatever the code between them does."""
    prepared = copy.deepcopy(module).eval()
    names = [
        name for name, part in prepared.named_modules() if isinstance(part, WEIGHTED) and not _is_excluded(name, scheme)
    ]
    if not names:
        raise UnfitError(NOTHING)
    grid = scheme.grid(nonnegative=False)  # which inputs come out of a ReLU is not known here
    for name in names:
        layer = layer_for(prepared.get_submodule(name), None, scheme)
        is_head = name == names[-1]  # what it says is the answer, and stays in float
        after = rounding_for(grid, scheme) if not is_head and scheme.every_edge else None
        prepared.set_submodule(name, RoundedByItself(layer, before=rounding_for(grid, scheme), after=after))
    return prepared


def _trace(module: nn.Module) -> fx.GraphModule | None:
    """None: its forward branches on values, or takes what torch cannot follow."""
    try:
        return fx.symbolic_trace(copy.deepcopy(module).eval())
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError, ValueError, KeyError, IndexError):
        return None


def _replace_layers_(graph_module: fx.GraphModule, scheme: Scheme) -> None:
    """Swap weighted layers for rounded ones, with the batch norm that follows folded in."""
    parts = dict(graph_module.named_modules())
    calls = Counter(str(node.target) for node in graph_module.graph.nodes if node.op == "call_module")
    for node in list(graph_module.graph.nodes):
        name = str(node.target)
        if node.op != "call_module" or not isinstance(parts[name], WEIGHTED) or _is_excluded(name, scheme):
            continue
        norm_node = _norm_behind(node, parts, calls)
        norm = parts[str(norm_node.target)] if norm_node is not None else None
        if norm_node is not None:
            norm_node.replace_all_uses_with(node)
            graph_module.graph.erase_node(norm_node)
            graph_module.delete_submodule(str(norm_node.target))
        layer = layer_for(parts[name], norm, scheme)
        layer.norm_name = None if norm_node is None else str(norm_node.target)
        graph_module.set_submodule(name, layer)
    graph_module.recompile()


def _norm_behind(node: fx.Node, parts: Mapping[str, nn.Module], calls: Mapping[str, int]) -> fx.Node | None:
    """The batch norm that alone takes this layer's output, where both are used once."""
    follower = only_user(node)
    if follower is None or follower.op != "call_module":
        return None
    norm = parts[str(follower.target)]
    foldable = isinstance(norm, NORMS) and norm.track_running_stats and norm.affine
    once = calls[str(node.target)] == calls[str(follower.target)] == 1
    return follower if foldable and once else None


def _is_excluded(name: str, scheme: Scheme) -> bool:
    return any(name == excluded or name.startswith(excluded + ".") for excluded in scheme.exclude)


def _insert_roundings_(graph_module: fx.GraphModule, scheme: Scheme, rounded: set[str]) -> None:
    graph = graph_module.graph
    made: dict[fx.Node, fx.Node] = {}

    def rounding(node: fx.Node) -> fx.Node:
        """The rounded value of a node: one rounding for each producer, shared by everyone who wants it."""
        if node in made.values():
            return node
        if node not in made:
            name = f"{node.name}{SUFFIX}"
            grid = scheme.grid(nonnegative=is_nonnegative(node, graph_module))
            graph_module.add_submodule(name, rounding_for(grid, scheme))
            with graph.inserting_after(node):
                made[node] = graph.call_module(name, (node,))
        return made[node]

    layers = {node for node in graph.nodes if node.op == "call_module" and str(node.target) in rounded}
    for node in list(graph.nodes):
        if node in layers:
            node.update_arg(0, rounding(node.args[0]))
        elif is_addition(node):
            for place in _operands_to_round(node, scheme, layers):
                node.update_arg(place, rounding(node.args[place]))
    if scheme.every_edge:
        outputs = {argument for node in graph.nodes if node.op == "output" for argument in node.all_input_nodes}
        for node in list(graph.nodes):
            if is_gate(node, graph_module) and comes_of(layers, node):
                for place, operand in enumerate(node.args[:2]):
                    node.update_arg(place, rounding(operand))
                    if does(operand, graph_module, SIGMOIDS, SIGMOID_FUNCTIONS):
                        operand.update_arg(0, rounding(operand.args[0]))
            elif node not in layers and not is_addition(node):
                continue
            last = behind_absorbed(node, graph_module)
            if not {node, last} & outputs:
                _round_output_(last, rounding(last))


def _spell_out_gates_(graph_module: fx.GraphModule) -> None:
    """x times sigmoid(x) in place of SiLU, and the like: what is between can be rounded then.

    A module keeps its place and hands the product on, so that a loss which looks there still finds it.
    """
    graph, parts = graph_module.graph, dict(graph_module.named_modules())
    for node in list(graph.nodes):
        kind = type(parts[node.target]) if node.op == "call_module" else node.target
        gate = GATED.get(kind) if node.op in ("call_module", "call_function") else None
        if gate is None:
            continue
        with graph.inserting_before(node):
            product = graph.call_function(operator.mul, (node.args[0], graph.call_function(gate, (node.args[0],))))
        if node.op == "call_module":
            graph_module.set_submodule(node.target, nn.Identity())
            node.update_arg(0, product)
        else:
            node.replace_all_uses_with(product)
            graph.erase_node(node)


def _operands_to_round(node: fx.Node, scheme: Scheme, layers: set[fx.Node]) -> tuple[int, ...]:
    """Which operands of an addition are rounded: both, the skip alone, or none where nothing fuses with it."""
    operands = [argument for argument in node.args[:2] if isinstance(argument, fx.Node)]
    if len(operands) < 2:
        return ()  # an offset, not a residual
    from_layer = [operand in layers for operand in operands]
    if scheme.every_edge or (scheme.whole_additions and any(from_layer)):
        return (0, 1)
    if not any(from_layer):
        return ()
    # The other operand fuses with its convolution, whose sum then leaves in the skip's precision.
    return (0,) if from_layer == [False, True] else (1,)


def _round_output_(node: fx.Node, rounded: fx.Node) -> None:
    for user in list(node.users):
        if user is not rounded:
            user.replace_input_with(node, rounded)
