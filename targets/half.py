"""The same network with FP16 tensors: what TensorRT needs to see from version 11 on, where types alone decide.

Weights and arithmetic become float16; input and output stay float32. What overflows float16, or loses too much in it,
stays float32, in islands as large as keep casts from going back and forth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import installed
from .errors import StageError
from .graphs import STANDARD, Graph, opset_of
from .qdq_rules import DEQUANTIZE, QUANTIZE
from .sessions import Array

Zone = Literal["half", "float"]

RANGE_SAMPLES = 16  # by which it is found what overflows
LARGEST = 65504.0  # of float16
ROOM = 4.0  # what other inputs may exceed the largest value that was seen by
HALF_SCALES_SINCE = 19  # operator set: quantises float16 with a float16 scale
# Sums over many values, squares, exponentials and logarithms leave the range of float16 first. The normalisations of
# ONNX that compute in float32 by themselves (stash_type) are not among them.
IN_FLOAT = frozenset(
    {
        "CumSum", "Exp", "InstanceNormalization", "Log", "LpNormalization", "MeanVarianceNormalization", "Pow",
        "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd",
        "ReduceSum", "ReduceSumSquare", "Sqrt",
    }
)  # fmt: skip


def to_half(model: Any, *, largest: Mapping[str, float] | None = None) -> Any:
    """Another model with float16 inside. largest: the largest magnitude that tensors were seen to have, by name.

    StageError: it quantises, in an operator set that cannot do that with float16.
    """
    import onnx

    result, opset = _with_named_constants(model), opset_of(model)
    graph = Graph(result)
    if opset < HALF_SCALES_SINCE and any(node.op_type in {QUANTIZE, DEQUANTIZE} for node in graph.nodes):
        raise StageError(
            f"operator set {opset} quantises float32 alone: with FP16 around INT8 the profile's opset has to be "
            f"{HALF_SCALES_SINCE} or newer"
        )
    _Conversion(result, graph, zones(result, largest=largest), opset).carry_out_()
    onnx.checker.check_model(result, full_check=True)
    return result


def write_half(path: Path, samples: Array) -> Path:
    """Write the same network with float16 inside beside an ONNX file, as NAME-fp16.onnx, and return where.

    samples: as the network takes them; the first few tell what would overflow. StageError: as `to_half`.
    """
    import onnx

    content, made = path.read_bytes(), path.with_name(f"{path.stem}-fp16.onnx")
    model = to_half(onnx.load_model_from_string(content), largest=largest_values(content, samples[:RANGE_SAMPLES]))
    made.write_bytes(model.SerializeToString())
    return made


def is_half(model: Any) -> bool:
    """Whether a model computes in float16 by its types."""
    import onnx

    kinds = {tensor.data_type for tensor in model.graph.initializer}
    cast_nodes = (node for node in model.graph.node if node.op_type == "Cast")
    casts = {item.i for node in cast_nodes for item in node.attribute if item.name == "to"}
    return onnx.TensorProto.FLOAT16 in kinds | casts


def largest_values(content: bytes, samples: Array) -> dict[str, float]:
    """The largest magnitude of every float tensor over these samples, in ONNX Runtime, without its optimisations.

    content: an ONNX file with a batch of 1, or of any size.
    """
    import onnx

    onnxruntime = installed.load("onnxruntime", package="onnxruntime")
    model = onnx.load_model_from_string(content)
    graph = Graph(model)
    shown = {output.name for output in model.graph.output}
    names = [name for node in graph.nodes for name in node.output if name and graph.kind(name) == "float32"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in shown)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0].name
    found = dict.fromkeys(names, 0.0)
    for sample in samples:
        for name, values in zip(names, session.run(names, {taken: sample[None]}), strict=True):
            if values.size:
                found[name] = max(found[name], float(np.abs(values).max()))
    return found


def zones(model: Any, *, largest: Mapping[str, float] | None = None) -> list[Zone]:
    """For each node, what it computes in."""
    graph, opset = Graph(model), opset_of(model)
    seen = largest or {}
    large = {name for name, value in seen.items() if not value * ROOM <= LARGEST}  # also where it is not a number
    large |= {name for name, tensor in graph.constants.items() if _is_too_large(graph, name, tensor)}
    large |= _read_in_bodies(graph)
    found: list[Zone] = [
        "float" if _stays_float(graph, node, opset) or large & {*node.input, *node.output} else "half"
        for node in graph.nodes
    ]
    places = {name: place for place, node in enumerate(graph.nodes) for name in node.output}
    readers = {name: [places[user.output[0]] for user in users] for name, users in graph.users.items()}
    changed = True
    while changed:  # what lies between two islands joins them: a cast there and back would be all that it saves
        changed = False
        for place, node in enumerate(graph.nodes):
            if found[place] == "half" and node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
                before = any(found[places[name]] == "float" for name in _floats(graph, node.input) if name in places)
                behind = any(
                    found[user] == "float" for name in _floats(graph, node.output) for user in readers.get(name, [])
                )
                if before and behind:
                    found[place], changed = "float", True
    return found


class _Conversion:
    """One rewriting of a graph in place: types of nodes by zone, and one cast for each tensor that crosses."""

    def __init__(self, model: Any, graph: Graph, found: list[Zone], opset: int) -> None:
        self.model, self.graph, self.opset = model, graph, opset
        self.zones = dict(zip((node.output[0] for node in graph.nodes), found, strict=True))
        self.nodes: list[Any] = []
        self.cast: dict[tuple[str, Zone], str] = {}
        self.copies: dict[str, Any] = {}

    def carry_out_(self) -> None:
        graph = self.model.graph
        for node in graph.node:
            zone = self.zones[node.output[0]]
            for place, name in enumerate(node.input):
                if name and self.graph.kind(name) == "float32":
                    wanted: Zone = zone if _takes_half(node, place, self.opset) else "float"
                    is_scale = node.op_type in {QUANTIZE, DEQUANTIZE} and place == 1
                    node.input[place] = self._as(name, wanted, is_scale=is_scale)
            if zone == "half":
                _retype_(node)
            self.nodes.append(node)
        for value in graph.output:
            if self._zone_of(value.name) == "half":
                self._rename_(value.name, f"{value.name}_half")
                self.nodes.append(_cast(f"{value.name}_half", value.name, "float"))
        used = {name for node in self.nodes for name in node.input} | {value.name for value in graph.output}
        used |= _read_in_bodies(self.graph)
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        for name, tensor in self.copies.items():
            if name not in used:  # nobody reads it as float: layers are known by the names of their weights
                self._rename_(tensor.name, name)
                tensor.name = name
            graph.initializer.append(tensor)
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.value_info[:]

    def _zone_of(self, name: str) -> Zone:
        maker = self.graph.makers.get(name)
        return "float" if maker is None or self.graph.kind(name) != "float32" else self.zones[maker.output[0]]

    def _as(self, name: str, wanted: Zone, *, is_scale: bool) -> str:
        """The tensor in that type: itself, a converted constant, or the result of a cast."""
        if self._zone_of(name) == wanted:
            return name
        if name in self.graph.constants:
            return self._copy(name, is_scale=is_scale)
        if (name, wanted) not in self.cast:
            made = f"{name}_{'half' if wanted == 'half' else 'float'}"
            self.nodes.append(_cast(name, made, wanted))
            self.cast[name, wanted] = made
        return self.cast[name, wanted]

    def _copy(self, name: str, *, is_scale: bool) -> str:
        import onnx

        value = onnx.numpy_helper.to_array(self.graph.constants[name])
        halved = np.asarray(value, np.float16)
        if is_scale:  # it has to stay above zero
            halved = np.maximum(halved, np.finfo(np.float16).smallest_subnormal)
        made = f"{name}_half"
        self.copies.setdefault(name, onnx.numpy_helper.from_array(halved, made))
        return made

    def _rename_(self, old: str, new: str) -> None:
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == old:
                        names[place] = new


def _with_named_constants(model: Any) -> Any:
    """A copy in which every constant is an initializer, so that each reader can be given it in its own type."""
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    nodes = []
    for node in result.graph.node:
        value = next((item.t for item in node.attribute if node.op_type == "Constant" and item.name == "value"), None)
        if value is None:
            nodes.append(node)
        else:
            value.name = node.output[0]
            result.graph.initializer.append(value)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def _cast(source: str, made: str, zone: Zone) -> Any:
    import onnx

    kind = onnx.TensorProto.FLOAT16 if zone == "half" else onnx.TensorProto.FLOAT
    return onnx.helper.make_node("Cast", [source], [made], name=f"{made}/Cast", to=kind)


def _retype_(node: Any) -> None:
    """What says float32 in the node's own attributes."""
    import onnx

    for item in node.attribute:
        if node.op_type == "Cast" and item.name == "to" and item.i == onnx.TensorProto.FLOAT:
            item.i = onnx.TensorProto.FLOAT16
        elif node.op_type == "ConstantOfShape" and item.t.data_type == onnx.TensorProto.FLOAT:
            halved = onnx.numpy_helper.to_array(item.t).astype(np.float16)
            item.t.CopyFrom(onnx.numpy_helper.from_array(halved, item.t.name))


def _stays_float(graph: Graph, node: Any, opset: int) -> bool:
    import onnx

    if node.op_type in IN_FLOAT or node.domain not in STANDARD or any(item.g.node for item in node.attribute):
        return True
    if node.op_type == "Mul" and node.input[0] == node.input[1]:
        return True  # a square
    if node.op_type == "Cast":  # to whole numbers: above 2048 float16 does not hold each of them
        return any(item.name == "to" and item.i != onnx.TensorProto.FLOAT for item in node.attribute)
    if node.op_type == "ConstantOfShape":
        return not node.attribute  # zeros of float32, unless it says otherwise
    return any(
        graph.kind(name) == "float32" and not _makes_half(node, place, opset) for place, name in enumerate(node.output)
    )


def _takes_half(node: Any, place: int, opset: int) -> bool:
    """Whether ONNX lets the node have float16 there: the sizes of a resize, for one, are float32."""
    return "tensor(float16)" in _allowed(node, place, opset, given=True)


def _makes_half(node: Any, place: int, opset: int) -> bool:
    return "tensor(float16)" in _allowed(node, place, opset, given=False)


def _allowed(node: Any, place: int, opset: int, *, given: bool) -> Any:
    import onnx

    schema = onnx.defs.get_schema(node.op_type, opset, "")
    listed = schema.inputs if given else schema.outputs
    return listed[min(place, len(listed) - 1)].types if listed else ()


def _is_too_large(graph: Graph, name: str, tensor: Any) -> bool:
    import onnx

    if tensor.data_type != onnx.TensorProto.FLOAT:
        return False
    value = graph.value(name)
    finite = value[np.isfinite(value)] if value is not None else np.zeros(0)
    return bool(finite.size) and bool(np.abs(finite).max() > LARGEST)


def _read_in_bodies(graph: Graph) -> set[str]:
    """What loops and branches read: their nodes keep their types, and so does this."""
    outer = {id(node) for node in graph.nodes}
    return {name for node in graph.every_node() if id(node) not in outer for name in node.input}


def _floats(graph: Graph, names: Any) -> Iterator[str]:
    return (name for name in names if graph.kind(name) == "float32")
