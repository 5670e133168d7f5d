"""One ONNX node, as an older operator set says it."""

from __future__ import annotations

from typing import Any

from .graphs import Graph

REDUCTIONS = frozenset(
    {
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSumSquare",
    }
)  # fmt: skip
OLD_KINDS = frozenset({"float16", "float32", "float64", "int32", "int64", "bool", "int8", "uint8", ""})
# Attributes that came later and whose default is what the older set does anyway; of these it depends on the value.
LATER = {"allowzero": 0, "training_mode": 0, "saturate": 1, "antialias": 0, "keep_aspect_ratio_policy": b"stretch"}


def lowered(node: Any, graph: Graph, *, opset: int, target: int) -> Any:
    """The node in operator set `target`: itself or another one; or, as text, why it cannot be said there."""
    import onnx

    try:
        now = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return f"ONNX {opset} has no such operator"
    try:
        then = onnx.defs.get_schema(node.op_type, target, "")
    except onnx.defs.SchemaError:
        return f"operator set {target} does not have it yet; replace it in the model by operators that are older"
    if now.since_version == then.since_version:
        return node
    older = onnx.NodeProto()
    older.CopyFrom(node)
    problem = _inputs_to_attributes_(older, graph, target) or _drop_later_attributes_(older, then)
    if problem:
        return problem
    if len(older.input) > then.max_input or len([name for name in older.output if name]) > then.max_output:
        return f"in operator set {target} it takes fewer inputs; write it without the newer ones"
    odd = sorted({graph.kind(name) for name in (*node.input, *node.output) if name} - OLD_KINDS)
    if odd:
        return f"operator set {target} does not have it for {', '.join(odd)}"
    return older


def _inputs_to_attributes_(node: Any, graph: Graph, target: int) -> str | None:
    """What later sets take as an input and this one as an attribute, or takes from the shape."""
    import onnx

    if node.op_type in REDUCTIONS and target < 18 and len(node.input) > 1:
        axes = graph.value(node.input[1]) if node.input[1] else None
        if node.input[1] and axes is None:
            return "its axes are computed; write them as constants"
        if axes is not None and axes.size:
            node.attribute.append(onnx.helper.make_attribute("axes", [int(axis) for axis in axes]))
        elif any(item.name == "noop_with_empty_axes" and item.i for item in node.attribute):
            return "it reduces nothing where it has no axes; leave it out"
        _keep_(node, inputs=1, without="noop_with_empty_axes")
    if node.op_type == "Split" and target < 18:
        parts = next((item.i for item in node.attribute if item.name == "num_outputs"), None)
        if parts is not None:
            axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
            shape = graph.shape(node.input[0])
            size = shape[axis] if shape is not None else None
            if size is None or size % parts:  # equal parts are what the older set makes by itself
                return f"it splits {size or 'an open size'} into {parts} unequal parts; write the sizes"
            _keep_(node, inputs=1, without="num_outputs")
    if node.op_type == "Pad" and target < 18 and len(node.input) > 3:
        return "it pads chosen axes; write the padding of every axis"
    return None


def _keep_(node: Any, *, inputs: int, without: str) -> None:
    del node.input[inputs:]
    left = [item for item in node.attribute if item.name != without]
    del node.attribute[:]
    node.attribute.extend(left)


def _drop_later_attributes_(node: Any, then: Any) -> str | None:
    """Attributes that the older set does not know, where they say what it does anyway."""
    import onnx

    left = []
    for item in node.attribute:
        if item.name in then.attributes:
            left.append(item)
            continue
        value = onnx.helper.get_attribute_value(item)
        plain = LATER.get(item.name)
        ones = item.name == "dilations" and set(value) == {1}  # of an average pooling, since 19
        if not ones and (plain is None or value != plain):
            return f"its attribute {item.name} is younger than operator set {then.since_version}; leave it out"
    del node.attribute[:]
    node.attribute.extend(left)
    return None
