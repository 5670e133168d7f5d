"""What a GPU has to do for one inference: the kernels that TensorRT would make of a graph, and what each moves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import StageError
from ..graphs import Graph

Kind = Literal["dense", "pointwise", "grouped", "matmul", "memory"]

# Computed while the result of the kernel before is still in registers.
FUSED = frozenset(
    {
        "Add", "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Div", "Elu", "Erf", "Gelu", "HardSigmoid",
        "HardSwish", "LeakyRelu", "Mish", "Mul", "Neg", "PRelu", "QuantizeLinear", "Relu", "Sigmoid", "Softplus", "Sub",
        "Sum", "Swish", "Tanh",
    }
)  # fmt: skip
# Names of the same memory; a concatenation is written in place by who makes its parts.
FREE = frozenset(
    {
        "Concat", "Constant", "ConstantOfShape", "Dropout", "Flatten", "Gather", "Identity", "Reshape", "Shape",
        "Squeeze", "Unsqueeze",
    }
)  # fmt: skip


@dataclass(kw_only=True)
class Kernel:
    """One launch. weights, read, written: numbers of tensor elements. layer: the ONNX node that it is named after."""

    layer: str
    kind: Kind
    macs: float = 0.0
    weights: float = 0.0
    read: float = 0.0
    written: float = 0.0


@dataclass
class _Reading:
    """A walk over a graph. made: by tensor, the kernel that writes it."""

    graph: Graph
    kernels: list[Kernel] = field(default_factory=list)
    made: dict[str, Kernel | None] = field(default_factory=dict)

    def walk(self) -> list[Kernel]:
        for node in self.graph.nodes:
            if node.op_type in FREE or all(name in self.graph.constants for name in node.input if name):
                source = next((name for name in node.input if name and name not in self.graph.constants), "")
                self._remember(node, self.made.get(source) if node.op_type != "Concat" else None)
            elif (kernel := self._fusing(node)) is not None:
                kernel.written = self._made(node)
                kernel.read += sum(
                    self._elements(name) for name in self._inputs(node) if self.made.get(name) is not kernel
                )
                self._remember(node, kernel)
            else:
                kernel = self._kernel(node)
                self.kernels.append(kernel)
                self._remember(node, kernel)
        return self.kernels

    def _fusing(self, node: Any) -> Kernel | None:
        """The kernel that computes this node along the way."""
        if node.op_type not in FUSED:
            return None
        makers = {id(kernel): kernel for name in self._inputs(node) if (kernel := self.made.get(name)) is not None}
        if len(makers) == 1 and all(self.made.get(name) is not None for name in self._inputs(node)):
            return next(iter(makers.values()))
        alone = [name for name in self._inputs(node) if len(self.graph.users[name]) == 1]
        found = [kernel for name in alone if (kernel := self.made.get(name)) is not None]
        latest = next((kernel for kernel in found if kernel is self.kernels[-1]), None)
        return latest or (found[0] if found else None)

    def _kernel(self, node: Any) -> Kernel:
        made = self.graph.shape(node.output[0])
        if made is None or None in made[1:]:
            raise StageError(f"no estimate: the size of what {self.graph.where([node])} makes cannot be inferred")
        kernel = Kernel(layer=node.name or node.output[0], kind="memory")
        kernel.read = sum(self._elements(name) for name in self._inputs(node))
        kernel.written = self._made(node)
        if node.op_type in {"Conv", "ConvTranspose"}:
            self._convolution(node, kernel)
        elif node.op_type in {"Gemm", "MatMul"}:
            shape, other = self.graph.shape(node.input[0]), self._elements(node.input[1])
            inner = shape[0 if _attribute(node, "transA", 0) else -1] if shape else 0
            kernel.kind, kernel.macs = "matmul", kernel.written * (inner or 0)
            if node.input[1] in self.graph.constants:
                kernel.weights = other
        return kernel

    def _convolution(self, node: Any, kernel: Kernel) -> None:
        shape = self._weight_shape(node.input[1])
        groups, taps = int(_attribute(node, "group", 1)), math.prod(shape[2:])
        # of a transposed one the inputs are spread: one product for each input, tap and output channel of its group
        at = kernel.written if node.op_type == "Conv" else self._elements(node.input[0])
        kernel.macs, kernel.weights = at * shape[1] * taps, math.prod(shape)
        kernel.kind = "grouped" if groups > 1 else "pointwise" if taps == 1 else "dense"

    def _weight_shape(self, name: str) -> tuple[int, ...]:
        """Of weights that may lie behind Q and DQ."""
        while name not in self.graph.constants and name in self.graph.makers:
            name = self.graph.makers[name].input[0]
        return tuple(size or 1 for size in self.graph.shape(name) or (1, 1, 1))

    def _inputs(self, node: Any) -> list[str]:
        """Tensors that are computed."""
        return [name for name in node.input if name and not self._is_constant(name)]

    def _is_constant(self, name: str) -> bool:
        while name not in self.graph.constants:
            maker = self.graph.makers.get(name)
            if maker is None or maker.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
                return False
            name = maker.input[0]
        return True

    def _made(self, node: Any) -> float:
        return sum(self._elements(name) for name in node.output if name)

    def _elements(self, name: str) -> float:
        """With a batch of 1 where it is open."""
        return float(math.prod(size or 1 for size in self.graph.shape(name) or ()))

    def _remember(self, node: Any, kernel: Kernel | None) -> None:
        self.made.update(dict.fromkeys(node.output, kernel))


def kernels(model: Any) -> list[Kernel]:
    """In the order of computation. model: ONNX; what it would hold as weights may be missing, but not their shapes.

    StageError: a size cannot be inferred.
    """
    return _Reading(Graph(model)).walk()


def _attribute(node: Any, name: str, default: float) -> float:
    return next((float(item.i) for item in node.attribute if item.name == name), default)
