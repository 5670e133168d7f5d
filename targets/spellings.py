"""Operators that older TensorRTs lack, spelled out in those that all have; each is exact up to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .graphs import Graph


class Sheet:
    """Where one node is spelled out: the nodes and constants that take its place, named after it."""

    def __init__(self, node: Any, graph: Graph, *, opset: int) -> None:
        self.node, self.graph, self.opset = node, graph, opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    @property
    def has_one_output(self) -> bool:
        return not any(self.node.output[1:])

    @property
    def kind(self) -> str:
        """Of its first input, as NumPy calls it."""
        return self.graph.kind(self.node.input[0])

    def input(self, place: int) -> str | None:
        """None: left out."""
        return (self.node.input[place] or None) if place < len(self.node.input) else None

    def attribute(self, name: str, default: Any) -> Any:
        import onnx

        found = next((item for item in self.node.attribute if item.name == name), None)
        value = default if found is None else onnx.helper.get_attribute_value(found)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, value: Any, kind: str | None = None) -> str:
        """A tensor of that type; without one, of the first input's."""
        import onnx

        name = f"{self._stem}/constant_{len(self.constants)}"
        array = np.asarray(value, dtype=kind or self.kind or "float32")
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node; the name of what it makes."""
        import onnx

        name = f"{self._stem}/{operator}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), [f"{name}_output"], name=name, **attributes))
        return f"{name}_output"

    def mean(self, source: str, axes: Sequence[int]) -> str:
        """Over axes that stay, of size 1. They became an input with operator set 18."""
        if self.opset >= 18:
            return self.op("ReduceMean", source, self.constant(axes, "int64"), keepdims=1)
        return self.op("ReduceMean", source, axes=list(axes), keepdims=1)

    def finish(self, result: str) -> None:
        """Let the node that makes `result` make what the replaced node made."""
        maker = next(node for node in self.nodes if node.output[0] == result)
        maker.output[0] = self.node.output[0]

    @property
    def _stem(self) -> str:
        return str(self.node.name or self.node.output[0])


def hard_swish(sheet: Sheet) -> str | None:
    """x clip(x/6 + 1/2, 0, 1)."""
    x = sheet.node.input[0]
    return sheet.op("Mul", x, sheet.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def gelu(sheet: Sheet) -> str | None:
    """x Φ(x), by the error function or by tanh, as the node says."""
    x = sheet.node.input[0]
    if sheet.attribute("approximate", "none") == "tanh":
        cube = sheet.op("Mul", sheet.op("Mul", x, x), x)
        inner = sheet.op("Add", x, sheet.op("Mul", cube, sheet.constant(0.044715)))
        bent = sheet.op("Tanh", sheet.op("Mul", inner, sheet.constant(math.sqrt(2 / math.pi))))
    else:
        bent = sheet.op("Erf", sheet.op("Mul", x, sheet.constant(math.sqrt(0.5))))
    half = sheet.op("Mul", x, sheet.constant(0.5))
    return sheet.op("Mul", half, sheet.op("Add", bent, sheet.constant(1)))


def mish(sheet: Sheet) -> str | None:
    """x tanh(ln(1 + e^x))."""
    x = sheet.node.input[0]
    return sheet.op("Mul", x, sheet.op("Tanh", sheet.op("Softplus", x)))


def swish(sheet: Sheet) -> str | None:
    """x / (1 + e^(-αx))."""
    x, alpha = sheet.node.input[0], float(sheet.attribute("alpha", 1.0))
    scaled = x if alpha == 1.0 else sheet.op("Mul", x, sheet.constant(alpha))
    return sheet.op("Mul", x, sheet.op("Sigmoid", scaled))


def reciprocal(sheet: Sheet) -> str | None:
    """1/x."""
    return sheet.op("Div", sheet.constant(1), sheet.node.input[0])


def exclusive_or(sheet: Sheet) -> str | None:
    """Either, and not both."""
    a, b = sheet.node.input
    return sheet.op("And", sheet.op("Or", a, b), sheet.op("Not", sheet.op("And", a, b)))


def modulo(sheet: Sheet) -> str | None:
    """Of whole numbers, which divide towards zero in ONNX; fmod=0 has the divisor's sign. Floats are left alone: what
    rounding makes of the quotient can be a whole divisor off."""
    a, b = sheet.node.input
    if sheet.kind not in {"int32", "int64"}:
        return None

    def rest(value: str) -> str:
        return sheet.op("Sub", value, sheet.op("Mul", sheet.op("Div", value, b), b))

    return rest(a) if sheet.attribute("fmod", 0) else rest(sheet.op("Add", rest(a), b))


def shrink(sheet: Sheet) -> str | None:
    """0 within ±λ, and outside moved towards it by the bias."""
    x, limit, bias = sheet.node.input[0], sheet.attribute("lambd", 0.5), sheet.attribute("bias", 0.0)
    below = sheet.op("Less", x, sheet.constant(-limit))
    above = sheet.op("Greater", x, sheet.constant(limit))
    rest = sheet.op("Where", above, sheet.op("Sub", x, sheet.constant(bias)), sheet.constant(0))
    return sheet.op("Where", below, sheet.op("Add", x, sheet.constant(bias)), rest)


def layer_norm(sheet: Sheet) -> str | None:
    """(x - mean) / √(variance + ε) over the last axes, scaled and shifted."""
    axes = _last_axes(sheet)
    if axes is None:
        return None
    return _affine(sheet, _standardised(sheet, axes, epsilon=sheet.attribute("epsilon", 1e-5)))


def rms_norm(sheet: Sheet) -> str | None:
    """x / √(mean of squares + ε) over the last axes, scaled."""
    axes = _last_axes(sheet)
    if axes is None:
        return None
    return _affine(sheet, _by_root_mean_square(sheet, sheet.node.input[0], axes, sheet.attribute("epsilon", 1e-5)))


def mean_variance_norm(sheet: Sheet) -> str | None:
    """(x - mean) / √variance over the axes that the node names."""
    return _standardised(sheet, sheet.attribute("axes", [0, 2, 3]), epsilon=1e-9)


def group_norm(sheet: Sheet) -> str | None:
    """The groups as channels of an instance normalisation without scale, then one scale for each channel."""
    x, scale, bias = sheet.node.input
    shape, groups = sheet.graph.shape(x), int(sheet.attribute("num_groups", 0))
    values = [sheet.graph.value(name) for name in (scale, bias)]
    if shape is None or any(size is None for size in shape[1:]) or any(value is None for value in values):
        return None
    wide = [groups, math.prod(size or 0 for size in shape[1:]) // groups]
    grouped = sheet.op("Reshape", x, sheet.constant([0, *wide], "int64"))
    ones, zeros = sheet.constant(np.ones(groups)), sheet.constant(np.zeros(groups))
    epsilon = sheet.attribute("epsilon", 1e-5)
    normed = sheet.op("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    result = sheet.op("Reshape", normed, sheet.constant([0, *shape[1:]], "int64"))
    channels = int(shape[1] or 0)
    for operator, value in zip(("Mul", "Add"), values, strict=True):
        assert value is not None
        each = np.repeat(
            value, channels // value.size
        )  # one for each group until operator set 21, then for each channel
        result = sheet.op(operator, result, sheet.constant(each.reshape(-1, *[1] * (len(shape) - 2))))
    return result


def triangle(sheet: Sheet) -> str | None:
    """What lies on one side of a diagonal; of whole numbers and floats, whose last two sizes are known."""
    x, moved = sheet.node.input[0], sheet.input(1)
    shape, diagonal = sheet.graph.shape(x), sheet.graph.value(moved) if moved else np.array(0)
    if shape is None or shape[-1] is None or shape[-2] is None or diagonal is None or sheet.kind == "bool":
        return None
    ones = np.ones((shape[-2], shape[-1]), bool)
    kept = np.triu(ones, int(diagonal)) if sheet.attribute("upper", 1) else np.tril(ones, int(diagonal))
    return sheet.op("Where", sheet.constant(kept, "bool"), x, sheet.constant(0))


def one_hot(sheet: Sheet) -> str | None:
    """The on value where an index meets its class, along a new axis."""
    indices, depth, values = sheet.node.input
    count, pair, axis = sheet.graph.value(depth), sheet.graph.value(values), int(sheet.attribute("axis", -1))
    shape = sheet.graph.shape(indices)
    if count is None or pair is None or shape is None or sheet.kind not in {"int32", "int64"}:
        return None
    classes, axis = int(count.item()), axis % (len(shape) + 1)
    positive = sheet.op(
        "Where",
        sheet.op("Less", indices, sheet.constant(0)),
        sheet.op("Add", indices, sheet.constant(classes)),
        indices,
    )
    wide = sheet.op("Unsqueeze", positive, sheet.constant([axis], "int64"))
    places = sheet.constant(np.arange(classes).reshape(-1, *[1] * (len(shape) - axis)))
    off, on = (sheet.constant(value, str(pair.dtype)) for value in pair)
    return sheet.op("Where", sheet.op("Equal", wide, places), on, off)


def _last_axes(sheet: Sheet) -> list[int] | None:
    """From the node's axis to the last, counted from the end; None: the rank is not known."""
    axis = int(sheet.attribute("axis", -1))
    if axis >= 0:
        shape = sheet.graph.shape(sheet.node.input[0])
        if shape is None:
            return None
        axis -= len(shape)
    return list(range(axis, 0))


def _standardised(sheet: Sheet, axes: Sequence[int], *, epsilon: float) -> str:
    x = sheet.node.input[0]
    return _by_root_mean_square(sheet, sheet.op("Sub", x, sheet.mean(x, axes)), axes, epsilon)


def _by_root_mean_square(sheet: Sheet, x: str, axes: Sequence[int], epsilon: float) -> str:
    variance = sheet.mean(sheet.op("Mul", x, x), axes)
    return sheet.op("Div", x, sheet.op("Sqrt", sheet.op("Add", variance, sheet.constant(epsilon))))


def _affine(sheet: Sheet, result: str) -> str:
    """Scaled and shifted, where the node has what to scale and shift by."""
    for place, operator in ((1, "Mul"), (2, "Add")):
        factor = sheet.input(place)
        result = sheet.op(operator, result, factor) if factor else result
    return result


SPELLINGS: dict[str, Callable[[Sheet], str | None]] = {
    "Gelu": gelu,
    "GroupNormalization": group_norm,
    "HardSwish": hard_swish,
    "LayerNormalization": layer_norm,
    "MeanVarianceNormalization": mean_variance_norm,
    "Mish": mish,
    "Mod": modulo,
    "OneHot": one_hot,
    "RMSNormalization": rms_norm,
    "Reciprocal": reciprocal,
    "Shrink": shrink,
    "Swish": swish,
    "Trilu": triangle,
    "Xor": exclusive_or,
}
