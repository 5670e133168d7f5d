"""Will TensorRT's parser take this ONNX file? Found out here, before anyone carries it to a board."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import qdq_rules
from .graphs import STANDARD, Graph
from .operator_tables import opset_limit, supported, version_tuple
from .qdq_rules import is_weight

DECOMPOSED_BELOW = {
    "HardSwish": 14,
    "LayerNormalization": 17,
    "GroupNormalization": 18,
    "Mish": 18,
    "Gelu": 20,
}
# Inputs that its parser wants to be constants: 8.2-GA, docs/operators.md, "Restrictions".
CONSTANT_INPUTS = {"TopK": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Slice": (3,), "InstanceNormalization": (1, 2)}
INPUT_TYPES = frozenset({"FLOAT", "FLOAT16", "INT32", "INT64", "BOOL"})


def check(path: Path, *, version: str, has_int8: bool) -> list[str]:
    """Everything that TensorRT `version` would refuse in this file, each with the way around it.

    has_int8: whether the board has INT8 units; without them TensorRT builds no graph with Q/DQ nodes in it.
    """
    import onnx

    problems = check_model(onnx.load(str(path)), version=version, has_int8=has_int8)
    return [f"{path.name}: {problem}" for problem in problems]


def check_model(model: Any, *, version: str, has_int8: bool) -> list[str]:
    """The same of a loaded model."""
    graph = Graph(model)
    return [
        *_opset(model, version),
        *_inputs(model),
        *_operators(graph, version),
        *_weights(graph, version),
        *_constants(graph, version),
        *qdq_rules.check(graph, version, has_int8=has_int8),
    ]


def _opset(model: Any, version: str) -> Iterator[str]:
    limit = opset_limit(version)
    for opset in model.opset_import:
        if opset.domain in STANDARD and opset.version > limit:
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


def _operators(graph: Graph, version: str) -> Iterator[str]:
    known = supported(version)
    missing: dict[str, list[Any]] = {}
    for node in graph.every_node():
        if node.domain not in STANDARD:
            missing.setdefault(f"{node.domain}.{node.op_type}", []).append(node)
        elif node.op_type not in known:
            missing.setdefault(node.op_type, []).append(node)
    for kind, nodes in missing.items():
        yield f"{graph.where(nodes)}: TensorRT {version} has no {kind}: {_way_around(kind, version)}"


def _way_around(kind: str, version: str) -> str:
    first = DECOMPOSED_BELOW.get(kind)
    if first is not None:
        older = min(first - 1, opset_limit(version))
        return f"export with opset {older}, which spells it out in older operators"
    if kind.startswith("QLinear") or kind in {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}:
        return "quantise with QuantizeLinear and DequantizeLinear around a float operator"
    return "replace it in the model by operators that it has"


def _weights(graph: Graph, version: str) -> Iterator[str]:
    if version_tuple(version) >= (8, 5):
        return  # before, a convolution's weights had to be constants
    for node in graph.nodes:
        if node.op_type in {"Conv", "ConvTranspose"} and not is_weight(graph, node.input[1]):
            yield (
                f"{graph.where([node])}: its weights are computed, and TensorRT {version} wants an initializer: "
                "fold them into a constant before the export"
            )


def _constants(graph: Graph, version: str) -> Iterator[str]:
    if version_tuple(version) >= (8, 5):
        return
    for node in graph.nodes:
        places = [place for place in CONSTANT_INPUTS.get(node.op_type, ()) if place < len(node.input)]
        computed = [
            node.input[place] for place in places if node.input[place] and not graph.is_fixed(node.input[place])
        ]
        if computed:
            yield (
                f"{graph.where([node])}: its input {computed[0]!r} is computed, and TensorRT {version} wants a "
                "constant: let it depend on no input of the model"
            )
