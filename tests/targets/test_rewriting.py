"""What an older TensorRT lacks is said in what it has, and the numbers stay the same in ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgepress.targets.operators import check
from edgepress.targets.rewriting import rewritten
from edgepress.targets.spellings import SPELLINGS

X = np.random.default_rng(0).normal(scale=2, size=(2, 4, 5, 6)).astype(np.float32)
INDICES = np.array([[0, 2, -1], [1, 1, -3]])
WHOLE = np.array([[7, -7, 8, -8, 0]])
TRUTH = np.array([[True, True, False, False]])


def model_of(
    kind: str, x: NDArray[Any], *constants: NDArray[Any], opset: int, name: str = "/module/act/Node", **attributes: Any
) -> Any:
    """One node, its later inputs as constants, with what comes out in the type that ONNX infers."""
    names = [f"constant_{place}" for place in range(len(constants))]
    node = helper.make_node(kind, ["input", *names], ["output"], name=name, **attributes)
    taken = helper.make_tensor_value_info("input", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    graph = helper.make_graph(
        [node],
        "one",
        [taken],
        [onnx.ValueInfoProto(name="output")],
        [numpy_helper.from_array(constant, name) for name, constant in zip(names, constants, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    made = defined(model, x)
    kind_made = helper.np_dtype_to_tensor_dtype(made.dtype)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("output", kind_made, made.shape))
    return model


def defined(model: Any, x: NDArray[Any]) -> NDArray[Any]:
    """What ONNX says that the model answers, in its own slow implementation."""
    return np.asarray(ReferenceEvaluator(model).run(None, {"input": x})[0])


def answer(model: Any, x: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": x})[0])


CASES: dict[str, tuple[str, NDArray[Any], tuple[NDArray[Any], ...], int, dict[str, Any]]] = {
    "hard swish": ("HardSwish", X, (), 14, {}),
    "gelu by the error function": ("Gelu", X, (), 20, {}),
    "gelu by tanh": ("Gelu", X, (), 20, {"approximate": "tanh"}),
    "mish": ("Mish", X, (), 18, {}),
    "swish": ("Swish", X, (), 24, {"alpha": 1.7}),
    "layer norm": ("LayerNormalization", X, (X[0, 0, 0], X[1, 0, 0]), 17, {"epsilon": 1e-3}),
    "layer norm over three axes": ("LayerNormalization", X, (X[0],), 17, {"axis": 1}),
    "group norm, a scale for each group": ("GroupNormalization", X, (X[0, 0, 0, :2], X[1, 0, 0, :2]), 18, {"num_groups": 2}),
    "group norm, a scale for each channel": ("GroupNormalization", X, (X[0, 0, 0, :4], X[1, 0, 0, :4]), 21, {"num_groups": 2}),
    "rms norm": ("RMSNormalization", X, (X[0, 0, 0],), 23, {}),
    "mean variance norm": ("MeanVarianceNormalization", X, (), 13, {}),
    "reciprocal": ("Reciprocal", X, (), 13, {}),
    "shrink": ("Shrink", X, (), 9, {"lambd": 1.0, "bias": 0.5}),
    "upper triangle": ("Trilu", X, (np.array(1),), 14, {}),
    "lower triangle": ("Trilu", X, (), 14, {"upper": 0}),
    "one hot": ("OneHot", INDICES, (np.array(3), np.array([0.5, 2], np.float32)), 13, {}),
    "one hot in front": ("OneHot", INDICES, (np.array(3), np.array([0.5, 2], np.float32)), 13, {"axis": 0}),
    "remainder like Python": ("Mod", WHOLE, (np.array([3, 3, -3, -3, 5]),), 13, {}),
    "remainder like C": ("Mod", WHOLE, (np.array([3, 3, -3, -3, 5]),), 13, {"fmod": 1}),
    "either but not both": ("Xor", TRUTH, (np.array([[True, False, True, False]]),), 13, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operator_that_8_2_lacks_is_spelled_out_with_equal_numbers(case: str, tmp_path: Path) -> None:
    kind, x, constants, opset, attributes = CASES[case]
    model = model_of(kind, x, *constants, opset=opset, **attributes)
    found = rewritten(model, version="8.2.1")
    path = tmp_path / "one.onnx"
    onnx.save(found.model, str(path))
    assert check(path, version="8.2.1", has_int8=False) == []
    assert found.problems == ()
    assert any(change.startswith(f"{kind} (1)") for change in found.changes)
    np.testing.assert_allclose(answer(found.model, x), defined(model, x), rtol=2e-5, atol=2e-5)


def test_every_spelling_is_tried_on_numbers() -> None:
    assert {case[0] for case in CASES.values()} == set(SPELLINGS)


def test_nothing_is_changed_where_there_is_nothing_to_change() -> None:
    model = model_of("HardSwish", X, opset=17)
    assert rewritten(model, version="8.5.2").model is model


def test_a_spelling_stays_in_the_layer_that_it_spells_out() -> None:
    found = rewritten(model_of("Gelu", X, opset=20), version="10.3.0")
    assert {node.name.rpartition("/")[0] for node in found.model.graph.node} == {"/module/act/Node"}
    assert found.changes == ("Gelu (1) in operators that TensorRT 10.3.0 has",)


def test_what_overflows_only_when_spelled_out_is_left_alone() -> None:
    floats = model_of("Mod", X, np.float32(1.5), opset=13, fmod=1)
    assert rewritten(floats, version="8.2.1").model is floats


@pytest.mark.parametrize(
    ("kind", "constants", "opset", "attributes"),
    [
        ("ReduceMean", (np.array([2, 3]),), 18, {}),
        ("ReduceMax", (np.array([-1]),), 20, {"keepdims": 0}),
        ("ReduceMean", (), 18, {}),
        ("Reshape", (np.array([2, -1]),), 14, {"allowzero": 0}),
        ("AveragePool", (), 19, {"kernel_shape": [2, 2], "dilations": [1, 1]}),
        ("Relu", (), 14, {}),
        ("Pad", (np.array([0, 0, 1, 1, 0, 0, 1, 1]),), 19, {}),
    ],
)
def test_a_newer_operator_set_is_lowered_with_equal_numbers(
    kind: str, constants: tuple[NDArray[Any], ...], opset: int, attributes: dict[str, Any]
) -> None:
    model = model_of(kind, X, *constants, opset=opset, **attributes)
    found = rewritten(model, version="8.2.1")
    assert [entry.version for entry in found.model.opset_import] == [13]
    assert found.changes == (f"operator set {opset} as 13",)
    np.testing.assert_allclose(answer(found.model, X), defined(model, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "x", "constants", "opset", "attributes", "words"),
    [
        ("GridSample", X, (X[:, :, :, :2],), 16, {}, "operator set 13 does not have it yet"),
        ("Reshape", X, (np.array([2, -1]),), 14, {"allowzero": 1}, "its attribute allowzero is younger"),
        ("AveragePool", X, (), 19, {"kernel_shape": [2, 2], "dilations": [2, 2]}, "its attribute dilations"),
        ("Pad", X, (np.array([1, 1]), np.float32(0), np.array([3])), 18, {}, "write the padding of every axis"),
    ],
)  # fmt: skip
def test_what_cannot_be_lowered_is_named_with_its_layer_and_nothing_is_changed(
    kind: str, x: NDArray[Any], constants: tuple[NDArray[Any], ...], opset: int, attributes: dict[str, Any], words: str
) -> None:
    model = model_of(kind, x, *constants, opset=opset, **attributes)
    found = rewritten(model, version="8.2.1")
    (problem,) = found.problems
    assert problem.startswith(f"layer 'act', node '/module/act/Node' ({kind}): ")
    assert words in problem
    assert found.model is model


def test_equal_parts_are_split_without_saying_how_many_and_unequal_ones_are_named() -> None:
    def split(size: int) -> Any:
        node = helper.make_node("Split", ["input"], ["a", "b"], name="/half/Split", axis=1, num_outputs=2)
        taken = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, size])
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None]) for name in "ab"]
        graph = helper.make_graph([node], "split", [taken], given)
        return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))

    assert rewritten(split(4), version="8.2.1").problems == ()
    assert "5 into 2 unequal parts" in rewritten(split(5), version="8.2.1").problems[0]
