"""Tiny models for the tests of targets/, made by hand so that no exporter is needed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgepress.targets.jobs import Engine

CLASSES = 10
IMAGE = (3, 8, 8)

Builder = Callable[..., Path]


def _pair(source: str, *, scale: float, kind: type[np.integer]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """QuantizeLinear and DequantizeLinear behind `source`; the result is called `source`_dq."""
    constants = [
        numpy_helper.from_array(np.float32(scale), f"{source}_scale"),
        numpy_helper.from_array(kind(0), f"{source}_zero"),
    ]
    ends = [f"{source}_scale", f"{source}_zero"]
    nodes = [
        helper.make_node("QuantizeLinear", [source, *ends], [f"{source}_q"], name=f"{source}_quantize"),
        helper.make_node("DequantizeLinear", [f"{source}_q", *ends], [f"{source}_dq"], name=f"{source}_dequantize"),
    ]
    return nodes, constants


def _network(
    path: Path,
    *,
    channels: int = 8,
    classes: int = CLASSES,
    activations: type[np.integer] | None = None,
    batch: int | str = "n",
    opset: int = 13,
    broken: bool = False,
) -> Path:
    """A convolution, ReLU, pooling and a linear layer. activations: quantise with that grid, weights in int8.

    broken: a weight is NaN.
    """
    rng = np.random.default_rng(0)
    kernel = rng.normal(scale=0.2, size=(channels, 3, 3, 3)).astype(np.float32)
    matrix = rng.normal(size=(channels, classes)).astype(np.float32)
    if broken:
        matrix[0, 0] = np.nan
    constants = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(matrix, "matrix")]
    nodes = []
    names = {"input": "input", "kernel": "kernel", "relu": "relu"}
    late = []
    if activations is not None:
        for source, scale, kind in (
            ("input", 0.03, activations),
            ("kernel", 0.006, np.int8),
            ("relu", 0.05, activations),
        ):
            pair, ends = _pair(source, scale=scale, kind=kind)
            (late if source == "relu" else nodes).extend(pair)
            constants.extend(ends)
            names[source] = f"{source}_dq"
    nodes += [
        helper.make_node("Conv", [names["input"], names["kernel"]], ["conv"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        *late,
        helper.make_node("GlobalAveragePool", [names["relu"]], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "matrix"], ["output"], name="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, *IMAGE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, classes])],
        constants,
    )
    return _save(graph, path, opset=opset)


def _endless(path: Path) -> Path:
    """A model that takes for ever to answer: a loop of 2^62 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still_going"]),
            helper.make_node("Sin", ["value"], ["next_value"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still_going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_value", TensorProto.FLOAT, None),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["rounds", "always", "input"], ["looped"], body=body),
            helper.make_node("Flatten", ["looped"], ["output"]),
        ],
        "endless",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *IMAGE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 192])],
        [
            numpy_helper.from_array(np.array(2**62, dtype=np.int64), "rounds"),
            numpy_helper.from_array(np.array(True), "always"),
        ],
    )
    return _save(graph, path, opset=13)


def _save(graph: onnx.GraphProto, path: Path, *, opset: int) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def network(tmp_path: Path) -> Builder:
    """Makes a small network: network("name", channels=8, activations=np.uint8, ...) returns its path."""
    return lambda name="model", **settings: _network(tmp_path / f"{name}.onnx", **settings)


@pytest.fixture
def good(network: Builder) -> Engine:
    """An engine that does what it should."""
    return Engine(name="good", path=network("good"), runtime="onnxruntime", precision="fp32")


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """The path of a model that never answers."""
    return _endless(tmp_path / "endless.onnx")


@pytest.fixture
def images() -> NDArray[np.float32]:
    """Seventy images, which is more than one batch."""
    return np.random.default_rng(1).normal(size=(70, *IMAGE)).astype(np.float32)
