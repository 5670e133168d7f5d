"""A network with float16 tensors: which ones, how close it answers, and that no cast goes back and forth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgepress.targets.errors import StageError
from edgepress.targets.graphs import Graph
from edgepress.targets.half import is_half, largest_values, to_half, zones

Builder = Callable[..., Path]
FLOAT, HALF = "float32", "float16"
IMAGES = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)


def chain(*nodes: onnx.NodeProto, opset: int = 17, **constants: NDArray[Any]) -> Any:
    """Nodes from `input` (1, 4) to `output` (1, 4)."""
    graph = helper.make_graph(
        list(nodes),
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(kind: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(names[:-1]), [names[-1]], name=f"the {kind} of {names[-1]}", **attributes)


def answers(model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": image[None]})[0] for image in images])


def casts(model: Any) -> list[tuple[str, str]]:
    return [(entry.input[0], entry.output[0]) for entry in model.graph.node if entry.op_type == "Cast"]


def kinds(model: Any) -> dict[str, str]:
    graph = Graph(model)
    names = {name for entry in graph.nodes for name in (*entry.input, *entry.output) if name}
    return {name: graph.kind(name) for name in names}


def test_every_tensor_of_a_plain_network_is_float16_and_its_ends_are_float32(network: Builder) -> None:
    half = to_half(onnx.load(network()))
    found = kinds(half)
    assert {name for name, kind in found.items() if kind != HALF} == {"input", "output"}
    assert {found["input"], found["output"]} == {FLOAT}
    assert len(casts(half)) == 2


def test_weights_keep_their_names_since_layers_are_known_by_them(network: Builder) -> None:
    model = onnx.load(network())
    names = {tensor.name for tensor in model.graph.initializer}
    assert {tensor.name for tensor in to_half(model).graph.initializer} == names


def test_a_float16_network_answers_nearly_as_the_float32_one(network: Builder) -> None:
    model = onnx.load(network())
    np.testing.assert_allclose(answers(to_half(model), IMAGES), answers(model, IMAGES), rtol=0.01, atol=0.01)


def test_only_a_float16_network_is_told_for_one(network: Builder) -> None:
    model = onnx.load(network())
    assert [is_half(model), is_half(to_half(model))] == [False, True]


def test_around_int8_the_rest_is_float16_scales_included(network: Builder) -> None:
    half = to_half(onnx.load(network(activations=np.int8, opset=19)))
    found = kinds(half)
    assert {found[entry.output[0]] for entry in half.graph.node if entry.op_type == "QuantizeLinear"} == {"int8"}
    assert {name for name, kind in found.items() if kind not in {HALF, "int8"}} == {"input", "output"}
    assert {found[name] for name in found if name.endswith("_scale")} == {HALF}


def test_int8_with_float16_answers_nearly_as_int8_with_float32(network: Builder) -> None:
    model = onnx.load(network(activations=np.int8, opset=19))
    got, wanted = answers(to_half(model), IMAGES), answers(model, IMAGES)
    assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()


def test_older_operator_sets_cannot_quantise_float16(network: Builder) -> None:
    with pytest.raises(StageError, match="operator set 17 quantises float32 alone.* opset has to be 19"):
        to_half(onnx.load(network(activations=np.int8, opset=17)))


def test_a_scale_too_small_for_float16_stays_above_zero() -> None:
    model = chain(
        node("QuantizeLinear", "input", "scale", "zero", "q"),
        node("DequantizeLinear", "q", "scale", "zero", "output"),
        opset=19, scale=np.float32(1e-8), zero=np.int8(0),
    )  # fmt: skip
    (scale,) = (numpy_helper.to_array(t) for t in to_half(model).graph.initializer if t.name == "scale")
    assert scale > 0


def test_what_leaves_float16_by_its_nature_stays_float32_and_is_one_island() -> None:
    """A normalisation spelled out: the mean of squares overflows, and what lies between joins it."""
    model = chain(
        node("Relu", "input", "x"),
        node("ReduceMean", "x", "mean", axes=[1]),
        node("Sub", "x", "mean", "centred"),
        node("Mul", "centred", "centred", "squares"),
        node("ReduceMean", "squares", "variance", axes=[1]),
        node("Add", "variance", "epsilon", "above"),
        node("Sqrt", "above", "deviation"),
        node("Div", "centred", "deviation", "normed"),
        node("Relu", "normed", "output"),
        epsilon=np.float32(1e-12),
    )
    half = to_half(model)
    found = kinds(half)
    assert {found[name] for name in ("mean", "centred", "squares", "variance", "above", "deviation")} == {FLOAT}
    assert {found[name] for name in ("x", "normed")} == {HALF}
    big = np.array([[3000, 1000, 10, 1]], np.float32)  # its squares are far beyond float16
    np.testing.assert_allclose(answers(half, big), answers(model, big), rtol=0.01)


def test_what_was_seen_to_overflow_stays_float32_and_so_does_who_reads_it() -> None:
    model = chain(
        node("Mul", "input", "factor", "large"), node("Div", "large", "factor", "small"), node("Tanh", "small", "output"),
        factor=np.float32(60000),
    )  # fmt: skip
    sample = np.array([[1, 2, 3, 0.5]], np.float32)
    largest = largest_values(model.SerializeToString(), sample)
    assert largest["large"] == pytest.approx(180_000)
    assert zones(model) == ["half", "half", "half"]
    assert zones(model, largest=largest) == ["float", "float", "half"]
    np.testing.assert_allclose(answers(to_half(model, largest=largest), sample), answers(model, sample), rtol=0.01)


def test_a_constant_beyond_float16_keeps_its_reader_in_float32() -> None:
    model = chain(node("Add", "input", "mask", "masked"), node("Softmax", "masked", "output"),
                  mask=np.array([[0, 0, -3e38, 0]], np.float32))  # fmt: skip
    got = answers(to_half(model), np.ones((1, 4), np.float32))
    np.testing.assert_allclose(got, [[1 / 3, 1 / 3, 0, 1 / 3]], rtol=0.01)


def test_sizes_of_a_resize_stay_float32_as_onnx_wants() -> None:
    graph = helper.make_graph(
        [helper.make_node("Resize", ["input", "", "scales"], ["output"], name="resize")],
        "resize",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 8, 8])],
        [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")],
    )
    half = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    assert kinds(half)["scales"] == FLOAT
    assert len(casts(half)) == 2


@pytest.mark.parametrize("shared", ["Sqrt", "Relu"])
def test_a_tensor_is_cast_once_for_all_its_readers_and_never_back(shared: str) -> None:
    model = chain(
        node("Relu", "input", "x"),
        node(shared, "x", "a"), node("Exp", "x", "b"), node("Log", "x", "c"),
        node("Sum", "a", "b", "c", "output"),
    )  # fmt: skip
    half = to_half(model)
    found = casts(half)
    assert len({(source, kinds(half)[made]) for source, made in found}) == len(found)
    made = {output for _, output in found}
    assert not {source for source, _ in found} & made


def test_constants_in_nodes_are_given_to_each_reader_in_its_own_type() -> None:
    constant = helper.make_node(
        "Constant", [], ["tiny"], value=numpy_helper.from_array(np.float32(1e-12), "value"), name="constant"
    )
    model = chain(constant, node("Add", "input", "tiny", "x"), node("Pow", "x", "tiny", "output"))
    values = {t.name: numpy_helper.to_array(t) for t in to_half(model).graph.initializer}
    assert {str(value.dtype) for value in values.values()} == {FLOAT, HALF}
    assert values["tiny"] == np.float32(1e-12)


def test_whole_numbers_are_made_of_float32() -> None:
    """Between 2048 and 65504 float16 holds only some of them."""
    model = chain(
        node("Relu", "input", "x"), node("Cast", "x", "whole", to=TensorProto.INT64),
        node("Cast", "whole", "output", to=TensorProto.FLOAT),
    )  # fmt: skip
    assert zones(model) == ["half", "float", "half"]
