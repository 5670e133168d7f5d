"""Will TensorRT's parser take this ONNX file? Found out here, before anyone carries it to a board."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .operator_tables import opset_limit, supported, version_tuple

DECOMPOSED_BELOW = {
    "HardSwish": 14,
    "LayerNormalization": 17,
    "GroupNormalization": 18,
    "Mish": 18,
    "Gelu": 20,
}
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
WEIGHT_AXIS = {
    "Conv": 0,
    "ConvTranspose": 1,
    "Gemm": None,
    "MatMul": None,
}  # None: depends on how it is transposed
INPUT_TYPES = frozenset({"FLOAT", "FLOAT16", "INT32", "INT64", "BOOL"})


@dataclass(frozen=True, kw_only=True)
class _Graph:
    """What the checks ask of a graph."""

    nodes: list[Any]
    constants: Mapping[str, Any]  # name to tensor
    makers: Mapping[str, Any]  # name to the node that computes it
    users: Mapping[str, list[Any]]  # name to the nodes that read it

    def value(self, name: str) -> NDArray[Any] | None:
        """The constant of that name, or None where it is computed."""
        import onnx

        return onnx.numpy_helper.to_array(self.constants[name]) if name in self.constants else None


def check(path: Path, *, version: str, has_int8: bool) -> list[str]:
    """Everything that TensorRT `version` would refuse in this file, each with the way around it.

    has_int8: whether the board has INT8 units; without them TensorRT builds no graph with Q/DQ nodes in it.
    """
    import onnx

    model = onnx.load(str(path))
    graph = _graph(model)
    problems = [
        *_opset(model, version),
        *_inputs(model),
        *_operators(graph, version),
        *_weights(graph, version),
        *_quantization(graph, version, has_int8=has_int8),
    ]
    return [f"{path.name}: {problem}" for problem in problems]


def _graph(model: Any) -> _Graph:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    users: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
        for name in node.input:
            users.setdefault(name, []).append(node)
    makers = {name: node for node in model.graph.node for name in node.output}
    return _Graph(nodes=list(model.graph.node), constants=constants, makers=makers, users=users)


def _opset(model: Any, version: str) -> Iterator[str]:
    limit = opset_limit(version)
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"} and opset.version > limit:
            yield (
                f"opset {opset.version} is newer than TensorRT {version} reads (up to {limit}): "
                f"export with opset {limit}"
            )


def _inputs(model: Any) -> Iterator[str]:
    import onnx

    for value in model.graph.input:
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        if kind not in INPUT_TYPES:
            yield f"input {value.name!r} is {kind}, which TensorRT does not take: export it as FLOAT"


def _operators(graph: _Graph, version: str) -> Iterator[str]:
    known = supported(version)
    missing: dict[str, list[Any]] = {}
    for node in graph.nodes:
        if node.domain not in {"", "ai.onnx"}:
            missing.setdefault(f"{node.domain}.{node.op_type}", []).append(node)
        elif node.op_type not in known:
            missing.setdefault(node.op_type, []).append(node)
    for kind, nodes in missing.items():
        yield f"{_where(nodes)}: TensorRT {version} has no {kind}: {_way_around(kind, version)}"


def _way_around(kind: str, version: str) -> str:
    first = DECOMPOSED_BELOW.get(kind)
    if first is not None:
        older = min(first - 1, opset_limit(version))
        return f"export with opset {older}, which spells it out in older operators"
    if kind.startswith("QLinear") or kind in {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}:
        return "quantise with QuantizeLinear and DequantizeLinear around a float operator"
    return "replace it in the model by operators that it has"


def _weights(graph: _Graph, version: str) -> Iterator[str]:
    if version_tuple(version) >= (8, 5):
        return  # before, a convolution's weights had to be constants
    for node in graph.nodes:
        if node.op_type in {"Conv", "ConvTranspose"} and not _is_weight(graph, node.input[1]):
            yield (
                f"{_where([node])}: its weights are computed, and TensorRT {version} wants an initializer: "
                "fold them into a constant before the export"
            )


def _is_weight(graph: _Graph, name: str) -> bool:
    """A constant, or a constant behind Q and DQ."""
    if name in graph.constants:
        return True
    maker = graph.makers.get(name)
    return maker is not None and maker.op_type in {QUANTIZE, DEQUANTIZE} and _is_weight(graph, maker.input[0])


def _quantization(graph: _Graph, version: str, *, has_int8: bool) -> Iterator[str]:
    nodes = [node for node in graph.nodes if node.op_type in {QUANTIZE, DEQUANTIZE}]
    if nodes and not has_int8:
        yield (
            f"{_where(nodes)}: this board has no INT8 units, and TensorRT builds no graph with Q/DQ nodes "
            "there (Networks with QuantizeLayer/DequantizeLayer layers require hardware with Int8 support): "
            "export the float model, and drop the quantize stage"
        )
        return
    for node in nodes:
        yield from (f"{_where([node])}: {problem}" for problem in _of_pair(graph, node, version))


def _of_pair(graph: _Graph, node: Any, version: str) -> Iterator[str]:
    """What is wrong with one Q or DQ node."""
    source = graph.value(node.input[0])
    if node.op_type == DEQUANTIZE and source is not None and source.dtype == np.int32:
        yield "a bias as INT32 behind a DequantizeLinear is refused: leave biases in float"
        return
    if len(node.input) < 3:
        yield "its zero point is left out: write it, INT8 and zero, with as many values as the scale"
    else:
        yield from _of_zero_point(graph, node)
    scale = graph.value(node.input[1])
    if scale is None:
        yield "its scale is computed: TensorRT wants a constant, so export after calibration has ended"
        return
    if not (scale > 0).all():
        yield "a scale is not above zero, as of a dead channel: raise it to a small floor"
    if node.op_type == DEQUANTIZE and source is not None and version_tuple(version) < (10, 0):
        yield f"its weights are stored as INT8: TensorRT {version} wants float weights, then Q, then DQ"
    if scale.size > 1:
        yield from _of_channels(graph, node)


def _of_zero_point(graph: _Graph, node: Any) -> Iterator[str]:
    zero, scale = graph.value(node.input[2]), graph.value(node.input[1])
    if zero is None:
        yield "its zero point is computed: write it as a constant, INT8 and zero"
        return
    if zero.dtype != np.int8:
        kind = str(zero.dtype).upper()
        yield f"its zero point is {kind}: TensorRT quantises to INT8 only, use the flavour trt"
    if zero.any():
        yield "its zero point is not zero: TensorRT is symmetric only, use the flavour trt"
    if scale is not None and zero.size != scale.size:
        yield f"it has {scale.size} scales and {zero.size} zero points: write as many of both"


def _of_channels(graph: _Graph, node: Any) -> Iterator[str]:
    if not _is_weight(graph, node.input[0]):
        yield "an activation has one scale for each channel: TensorRT allows that for weights only"
        return
    axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
    users = graph.users.get(node.output[0], [])
    if node.op_type == QUANTIZE:
        users = [user for reader in users for user in graph.users.get(reader.output[0], [])]
    for user in users:
        wanted = WEIGHT_AXIS.get(user.op_type)
        if wanted is not None and axis != wanted:
            yield (
                f"its scales run along axis {axis}, the outputs of a {user.op_type} along {wanted}: write axis={wanted}"
            )


def _where(nodes: list[Any]) -> str:
    first = nodes[0]
    more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return f"node {first.name or first.output[0]!r} ({first.op_type}){more}"
