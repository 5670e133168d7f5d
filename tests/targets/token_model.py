"""A tiny network that takes numbers of tokens."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def tokens(folder: Path, *, name: str = "ids") -> Path:
    """Adds up six of them. name: of its input, and of the file."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [name], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["floats"], ["output"]),
        ],
        "tokens",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", 6])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
    )
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path
