"""What a node of an exported file, or of a runtime's graph, is called in the user's model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .layers import Layer, LayerTimes

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})
WRAPPER = "module"  # what the exporter puts around the user's model
# What runtimes append to the names of nodes and tensors that they change (OpenVINO 2026.4, ONNX Runtime 1.31).
ENDINGS = re.compile(r"(/WithoutBiases|/DequantizationMultiply|_token_\d+|_nchwc|_output_\d+|_nhwc)$")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A node of the exported file. layer: in the user's model; for what only rounds: whose input it rounds."""

    layer: str
    kind: str
    weighted: bool = False
    depthwise: bool = False
    swallows: Origin | None = None  # the weighted layer right before this activation: runtimes make one node of both


def origins(path: Path) -> dict[str, Origin]:
    """Every node of an ONNX file, by its name and by the tensors that it makes."""
    import onnx

    graph = onnx.load(str(path)).graph
    constants = constants_of(graph)
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found: dict[str, Origin] = {}
    for node in graph.node:
        origin = _origin(node, constants, users)
        inputs = [name for name in node.input if name not in constants]
        before = found.get(inputs[0]) if len(inputs) == 1 else None
        if before is not None and not origin.weighted:
            origin = replace(origin, swallows=before if before.weighted else before.swallows)
        for name in (node.name, *node.output):
            if name:
                found[name] = origin
    return found


def constants_of(graph: Any) -> dict[str, str]:
    """The initialiser behind every tensor that no input reaches: through its dequantisation, where it has one."""
    behind = {tensor.name: tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ROUNDING | {"Identity", "Transpose", "Cast"} and all(
            name in behind for name in node.input if name
        ):
            behind.update(dict.fromkeys(node.output, behind[node.input[0]]))
        elif node.op_type == "Constant":
            behind.update({output: output for output in node.output})
    return behind


def is_weighted(node: Any, constants: Mapping[str, str]) -> bool:
    """Whether a node multiplies by a constant: a convolution or a linear layer, and not attention."""
    return node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in constants


def layer_name(node: Any, constants: Mapping[str, str]) -> str:
    """`layer1.0.conv1`: by its weight where that kept its name, else by the scopes that it was traced in."""
    if is_weighted(node, constants):
        weight = constants[node.input[1]]
        if weight.endswith(".weight"):
            return weight.removesuffix(".weight").removeprefix(f"{WRAPPER}.")
    return _by_scope(node.name) or node.name or (node.output[0] if node.output else node.op_type)


def trace(times: LayerTimes, path: Path) -> LayerTimes:
    """The same layers with their names in the user's model. path: the ONNX file that the engine was made of."""
    known = origins(path)
    return replace(times, layers=tuple(_traced(layer, known) for layer in times.layers))


def _origin(node: Any, constants: Mapping[str, str], users: Mapping[str, list[Any]]) -> Origin:
    if node.op_type in ROUNDING and node.output[0] in constants:
        weight = constants[node.output[0]].removesuffix(".weight").removeprefix(f"{WRAPPER}.")
        return Origin(layer=f"weights of {weight}", kind=node.op_type)
    if node.op_type in ROUNDING:
        consumer = _first_weighted_user(node, constants, users)
        if consumer is not None:
            return Origin(layer=f"input of {layer_name(consumer, constants)}", kind=node.op_type)
    if not is_weighted(node, constants):
        return Origin(layer=layer_name(node, constants), kind=node.op_type)
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return Origin(
        layer=layer_name(node, constants),
        kind=node.op_type,
        weighted=True,
        depthwise=node.op_type == "Conv" and groups > 1,
    )


def _first_weighted_user(node: Any, constants: Mapping[str, str], users: Mapping[str, list[Any]]) -> Any | None:
    """The weighted layer that takes a rounded tensor, directly or behind the other half of the rounding."""
    for user in users.get(node.output[0], []):
        if is_weighted(user, constants):
            return user
        if user.op_type in ROUNDING:
            found = _first_weighted_user(user, constants, users)
            if found is not None:
                return found
    return None


def _by_scope(name: str) -> str:
    """`/module/layer1/layer1.0/conv1/Conv` as `layer1.0.conv1`; without a scope, the node's own last word."""
    parts = [part for part in name.split("/") if part and part != WRAPPER]
    joined: list[str] = []
    for part in parts[:-1] or parts:
        if joined and part.startswith(f"{joined[-1]}."):
            joined[-1] = part
        else:
            joined.append(part)
    return ".".join(joined)


def _traced(layer: Layer, known: Mapping[str, Origin]) -> Layer:
    found = [origin for name in (*layer.sources, layer.node) if (origin := _look_up(name, known)) is not None]
    best = next((origin for origin in found if origin.weighted), found[0] if found else None)
    if best is not None and layer.role == "weighted" and not best.weighted:
        best = best.swallows or best
    if best is not None:
        return replace(layer, layer=best.layer, depthwise=best.depthwise and layer.role == "weighted")
    if layer.role == "weighted":
        return replace(layer, layer=layer.node)
    return replace(layer, layer=_beside(layer, known), role="conversion" if layer.kind == "Transpose" else layer.role)


def _look_up(name: str, known: Mapping[str, Origin]) -> Origin | None:
    """By the name, or by what is left of it without what the runtime appended."""
    while name not in known:
        shorter = ENDINGS.sub("", name)
        if shorter == name:
            return None
        name = shorter
    return known[name]


def _beside(layer: Layer, known: Mapping[str, Origin]) -> str:
    """A node that the runtime added is named after the one whose name it carries."""
    inside = [name for name, origin in known.items() if origin.weighted and name in layer.node]
    return f"added before {known[max(inside, key=len)].layer}" if inside else "added by the runtime"
