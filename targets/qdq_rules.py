"""What TensorRT's parser asks of QuantizeLinear and DequantizeLinear, and what it says where that does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .graphs import Graph
from .operator_tables import version_tuple

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
FLOATS = frozenset({"float32", "float16", "bfloat16"})
WEIGHT_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": None, "MatMul": None}  # None: depends on how it is transposed


def check(graph: Graph, version: str, *, has_int8: bool) -> Iterator[str]:
    nodes = [node for node in graph.nodes if node.op_type in {QUANTIZE, DEQUANTIZE}]
    if nodes and not has_int8:
        yield (
            f"{graph.where(nodes)}: this board has no INT8 units, and TensorRT builds no graph with Q/DQ nodes "
            "there (Networks with QuantizeLayer/DequantizeLayer layers require hardware with Int8 support): "
            "export the float model, and drop the quantize stage"
        )
        return
    for node in nodes:
        yield from (f"{graph.where([node])}: {problem}" for problem in _of_pair(graph, node, version))


def _of_pair(graph: Graph, node: Any, version: str) -> Iterator[str]:
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
    if node.op_type == QUANTIZE:
        yield from _of_type(graph, node, version)


def _of_zero_point(graph: Graph, node: Any) -> Iterator[str]:
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


def _of_type(graph: Graph, node: Any, version: str) -> Iterator[str]:
    """NvInfer.h, IQuantizeLayer: FP32 alone until 8.5; strongly typed, the scale has the type of what is quantised."""
    kind, scale = graph.kind(node.input[0]), graph.kind(node.input[1])
    if kind == "float16" and version_tuple(version) < (8, 6):
        yield f"it quantises FP16, and TensorRT {version} quantises FP32 alone: leave the types FP32, flags choose FP16"
    elif kind in FLOATS and scale in FLOATS and kind != scale and version_tuple(version) >= (10, 0):
        yield f"it quantises {kind} with a scale of {scale}: give the scale the type of what it scales"


def _of_channels(graph: Graph, node: Any) -> Iterator[str]:
    if not is_weight(graph, node.input[0]):
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


def is_weight(graph: Graph, name: str) -> bool:
    """A constant, or a constant behind Q and DQ."""
    if name in graph.constants:
        return True
    maker = graph.makers.get(name)
    return maker is not None and maker.op_type in {QUANTIZE, DEQUANTIZE} and is_weight(graph, maker.input[0])
