"""What checks and rewritings ask of an ONNX graph: constants, types, shapes, who makes and who reads a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from .tracing import constants_of, layer_name

STANDARD = frozenset({"", "ai.onnx"})


class Graph:
    """An ONNX model, looked at; nothing is changed.

    constants: by name. makers: the node that computes a tensor. users: the nodes that read one.
    """

    def __init__(self, model: Any) -> None:
        self.nodes: list[Any] = list(model.graph.node)
        self.outputs = {value.name for value in model.graph.output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.users: dict[str, list[Any]] = {}
        for node in self.nodes:
            if node.op_type == "Constant":
                self.constants.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self._sources = constants_of(model.graph)
        self._types = _types(model)

    def value(self, name: str) -> NDArray[Any] | None:
        """The constant of that name; None: it is computed."""
        import onnx

        return onnx.numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """None in it: open. None for all of it: not known."""
        if name in self.constants:
            return tuple(self.constants[name].dims)
        kind = self._types.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        return tuple(size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)

    def kind(self, name: str) -> str:
        """float32, as NumPy calls it; empty: not known."""
        import onnx

        number = self.constants[name].data_type if name in self.constants else 0
        if not number and name in self._types:
            number = self._types[name].elem_type
        return str(onnx.helper.tensor_dtype_to_np_dtype(number)) if number else ""

    def is_fixed(self, name: str) -> bool:
        """Whether it is known when an engine is built: computed from constants and fixed shapes alone."""
        todo, seen = [name], {name}
        while todo:
            name = todo.pop()
            if name in self.constants:
                continue
            maker = self.makers.get(name)
            if maker is None or not maker.input:
                return False
            if maker.op_type == "Shape":
                shape = self.shape(maker.input[0])
                if shape is None or None in shape:
                    return False
                continue
            new = {source for source in maker.input if source} - seen
            seen |= new
            todo += new
        return True

    def every_node(self) -> Iterator[Any]:
        """Those of the bodies of loops and branches too."""
        yield from _with_bodies(self.nodes)

    def where(self, nodes: Sequence[Any]) -> str:
        """The first of these nodes, in the user's model and in the file, and how many more there are."""
        first = nodes[0]
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        node = first.name or first.output[0]
        layer = layer_name(first, self._sources)
        named = f"layer {layer!r}, " if layer != node else ""
        return f"{named}node {node!r} ({first.op_type}){more}"


def opset_of(model: Any) -> int:
    """The standard operator set that a model is written in; 0: none."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)


def _types(model: Any) -> dict[str, Any]:
    """Of every tensor, as far as shapes can be inferred; a file that is wrong is for others to refuse."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = model.graph
    return {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}


def _with_bodies(nodes: Sequence[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        for item in node.attribute:
            for body in (item.g, *item.graphs):
                yield from _with_bodies(body.node)
