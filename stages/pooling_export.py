"""Adaptive average pooling of any size as ONNX says it: torch's exporter knows only sizes that divide the input's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

OPERATORS = {1: "aten::adaptive_avg_pool1d", 2: "aten::adaptive_avg_pool2d"}  # by how many dimensions they pool
OLDEST_OPSET = 9


@contextlib.contextmanager
def any_adaptive_pooling() -> Iterator[None]:
    """While an export lasts, such as that of VGG on small images, whose pooling enlarges what it is given.

    Each dimension is then a product with a constant matrix that holds the weights of `averages`. Sizes that divide the
    input's, and inputs whose size is open, are exported as torch does it.
    """
    registry: Any = torch.onnx  # documented there, and not among the names that its stubs export
    for dimensions, operator in OPERATORS.items():
        registry.register_custom_op_symbolic(operator, _symbolic(dimensions), OLDEST_OPSET)
    try:
        yield
    finally:
        for operator in OPERATORS.values():
            registry.unregister_custom_op_symbolic(operator, OLDEST_OPSET)


def averages(size: int, wanted: int) -> Tensor:
    """(wanted, size): what each of `size` values adds to each mean. torch's bounds: floor and ceiling of the share."""
    matrix = torch.zeros(wanted, size)
    for place in range(wanted):
        begin, end = place * size // wanted, -(-(place + 1) * size // wanted)
        matrix[place, begin:end] = 1 / (end - begin)
    return matrix


def _symbolic(dimensions: int) -> Callable[[Any, Any, Any], Any]:
    def export(graph: Any, x: Any, wanted: Any) -> Any:
        from torch.onnx import symbolic_helper, symbolic_opset9

        sizes = (symbolic_helper._get_tensor_sizes(x) or [None])[-dimensions:]
        asked = symbolic_helper._parse_arg(wanted, "is")
        into = [size if one is None else one for size, one in zip(sizes, asked, strict=False)]
        if (
            len(into) < dimensions
            or None in sizes
            or all(size % one == 0 for size, one in zip(sizes, into, strict=True))
        ):
            return getattr(symbolic_opset9, OPERATORS[dimensions].removeprefix("aten::"))(graph, x, wanted)
        rows = graph.op("Constant", value_t=averages(sizes[-1], into[-1]).T.contiguous())
        x = graph.op("MatMul", x, rows)
        if dimensions == 1:
            return x
        return graph.op("MatMul", graph.op("Constant", value_t=averages(sizes[0], into[0])), x)

    return export
