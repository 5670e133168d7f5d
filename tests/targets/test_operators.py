"""What TensorRT would refuse is found in the file, with the node and the way around it."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepress.targets.operator_tables import OPSET_LIMITS, SINCE, opset_limit, supported
from edgepress.targets.operators import check

Builder = Callable[..., Path]


def one_node(path: Path, kind: str, *, opset: int = 13, domain: str = "", element: int = TensorProto.FLOAT) -> Path:
    """A model of a single node; it does not have to make sense to any runtime."""
    graph = helper.make_graph(
        [helper.make_node(kind, ["input"], ["output"], name="the_node", domain=domain)],
        "one",
        [helper.make_tensor_value_info("input", element, [1, 4])],
        [helper.make_tensor_value_info("output", element, [1, 4])],
    )
    return save(graph, path, opset=opset)


def save(graph: onnx.GraphProto, path: Path, *, opset: int = 13) -> Path:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), str(path))
    return path


def quantized_conv(
    path: Path,
    *,
    kind: str = "Conv",
    axis: int = 0,
    zero: int = 0,
    scale: float = 0.1,
    grid: type[np.integer] = np.int8,
    with_zero: bool = True,
    channels: int = 4,
) -> Path:
    """Float weights, Q, DQ, and a convolution: one scale for each of `channels`."""
    constants = [
        numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "kernel"),
        numpy_helper.from_array(np.full(channels, scale, np.float32), "scale"),
        numpy_helper.from_array(np.full(channels, zero, grid), "zero"),
    ]
    ends = ["scale", "zero"] if with_zero else ["scale"]
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["kernel", *ends], ["q"], name="quantize", axis=axis),
            helper.make_node("DequantizeLinear", ["q", *ends], ["dq"], name="dequantize", axis=axis),
            helper.make_node(kind, ["input", "dq"], ["output"], name="conv"),
        ],
        "conv",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4, 8, 8])],
        constants,
    )
    return save(graph, path)


@pytest.mark.parametrize("version", ["8.2.1", "8.5.2", "8.6.2", "10.3.0", "10.15.0"])
def test_a_plain_network_is_taken_by_every_version(version: str, network: Builder) -> None:
    assert check(network(opset=13), version=version, has_int8=False) == []


@pytest.mark.parametrize("version", ["8.2.1", "8.6.2", "10.3.0"])
def test_symmetric_q_dq_with_float_weights_is_taken_where_there_is_int8(version: str, network: Builder) -> None:
    assert check(network(activations=np.int8), version=version, has_int8=True) == []


def test_q_dq_is_refused_on_a_board_without_int8(network: Builder) -> None:
    (problem,) = check(network("quantized", activations=np.int8), version="8.2.1", has_int8=False)
    assert problem.startswith("quantized.onnx: node 'input_quantize' (QuantizeLinear) and 5 more: ")
    assert "no INT8 units" in problem
    assert "drop the quantize stage" in problem


@pytest.mark.parametrize(
    ("version", "limit"), [("8.2.1", 13), ("8.4.1", 13), ("8.5.2", 17), ("10.3.0", 20), ("10.16.1", 24)]
)
def test_an_opset_that_is_too_new_is_refused_with_the_newest_that_is_not(
    version: str, limit: int, network: Builder
) -> None:
    assert check(network(opset=limit), version=version, has_int8=False) == []
    if limit < 24:
        (problem,) = check(network(opset=limit + 1), version=version, has_int8=False)
        assert f"export with opset {limit}" in problem


@pytest.mark.parametrize(
    ("kind", "version", "opset", "words"),
    [
        ("HardSwish", "8.2.1", 14, "export with opset 13"),
        ("Gelu", "10.3.0", 20, "export with opset 19"),
        ("Gelu", "8.6.2", 17, "export with opset 17"),
        ("NonZero", "8.2.1", 13, "replace it in the model"),
        ("QLinearConv", "10.3.0", 17, "quantise with QuantizeLinear and DequantizeLinear"),
        ("ConvInteger", "8.5.2", 13, "quantise with QuantizeLinear and DequantizeLinear"),
    ],
)
def test_an_operator_that_is_missing_comes_with_the_way_around_it(
    kind: str, version: str, opset: int, words: str, tmp_path: Path
) -> None:
    problems = check(one_node(tmp_path / "one.onnx", kind, opset=opset), version=version, has_int8=True)
    assert f"one.onnx: node 'the_node' ({kind}): TensorRT {version} has no {kind}: " in problems[-1]
    assert words in problems[-1]


@pytest.mark.parametrize(
    ("kind", "version"), [("HardSwish", "8.5.2"), ("LayerNormalization", "10.3.0"), ("Gelu", "10.15.0")]
)
def test_an_operator_that_came_later_is_taken_later(kind: str, version: str, tmp_path: Path) -> None:
    assert check(one_node(tmp_path / "one.onnx", kind), version=version, has_int8=True) == []


def test_a_node_of_another_domain_is_refused(tmp_path: Path) -> None:
    path = one_node(tmp_path / "one.onnx", "Relu", domain="com.microsoft")
    (problem,) = check(path, version="10.3.0", has_int8=True)
    assert "has no com.microsoft.Relu" in problem


def test_an_input_of_bytes_is_refused(tmp_path: Path) -> None:
    path = one_node(tmp_path / "one.onnx", "Relu", element=TensorProto.UINT8)
    (problem,) = check(path, version="8.2.1", has_int8=True)
    assert "input 'input' is UINT8" in problem


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"zero": 3}, "its zero point is not zero"),
        ({"grid": np.uint8}, "its zero point is UINT8"),
        ({"with_zero": False}, "its zero point is left out"),
        ({"scale": 0.0}, "a scale is not above zero"),
        ({"axis": 1}, "axis 1, the outputs of a Conv along 0: write axis=0"),
        ({"axis": 0, "kind": "ConvTranspose"}, "axis 0, the outputs of a ConvTranspose along 1: write axis=1"),
    ],
)
def test_a_wrong_pair_around_weights_is_refused_twice(settings: dict[str, object], words: str, tmp_path: Path) -> None:
    problems = check(quantized_conv(tmp_path / "conv.onnx", **settings), version="10.3.0", has_int8=True)  # type: ignore[arg-type]
    assert [words in problem for problem in problems] == [True, True], problems
    assert ["'quantize'" in problems[0], "'dequantize'" in problems[1]] == [True, True]


@pytest.mark.parametrize("settings", [{}, {"axis": 1, "kind": "ConvTranspose"}, {"channels": 1, "axis": 1}])
def test_a_right_pair_around_weights_is_taken(settings: dict[str, object], tmp_path: Path) -> None:
    path = quantized_conv(tmp_path / "conv.onnx", **settings)  # type: ignore[arg-type]
    assert check(path, version="8.2.1", has_int8=True) == []


def test_a_scale_for_each_channel_of_an_activation_is_refused(tmp_path: Path) -> None:
    ends = ["scale", "zero"]
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["input", *ends], ["output"], name="quantize", axis=1)],
        "activation",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("output", TensorProto.INT8, [1, 4])],
        [
            numpy_helper.from_array(np.ones(4, np.float32), "scale"),
            numpy_helper.from_array(np.zeros(4, np.int8), "zero"),
        ],
    )
    (problem,) = check(save(graph, tmp_path / "a.onnx"), version="10.3.0", has_int8=True)
    assert "for weights only" in problem


@pytest.mark.parametrize(
    ("grid", "version", "words"),
    [
        (np.int8, "8.2.1", "wants float weights, then Q, then DQ"),
        (np.int32, "10.3.0", "a bias as INT32 behind a DequantizeLinear is refused"),
    ],
)
def test_constants_that_are_stored_quantised_are_refused(
    grid: type[np.integer], version: str, words: str, tmp_path: Path
) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["floats"], name="dequantize"),
            helper.make_node("Add", ["input", "floats"], ["output"]),
        ],
        "stored",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4])],
        [
            numpy_helper.from_array(np.ones(4, grid), "stored"),
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(grid(0), "zero"),
        ],
    )
    (problem,) = check(save(graph, tmp_path / "s.onnx"), version=version, has_int8=True)
    assert words in problem


def test_computed_weights_are_refused_before_8_5_and_taken_after(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["kernel"], ["computed"]),
            helper.make_node("Conv", ["input", "computed"], ["output"], name="conv"),
        ],
        "computed",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "kernel")],
    )
    path = save(graph, tmp_path / "c.onnx")
    (problem,) = check(path, version="8.2.1", has_int8=True)
    assert "node 'conv' (Conv): its weights are computed" in problem
    assert check(path, version="8.5.2", has_int8=True) == []


def test_every_operator_in_the_tables_exists_and_is_listed_once() -> None:
    # Written by old exporters and read by TensorRT, but never part of the standard, or gone from it.
    old = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    everything = [name for names in SINCE.values() for name in names]
    assert set(everything) - known <= old | {"RMSNormalization", "RotaryEmbedding", "Attention"}
    assert len(everything) == len(set(everything))


def test_newer_versions_read_no_less() -> None:
    versions = [".".join(map(str, version)) for version in OPSET_LIMITS]
    for older, newer in itertools.pairwise(versions):
        assert supported(older) < supported(newer)
        assert opset_limit(older) < opset_limit(newer)


def slices(path: Path, *, axes: str) -> Path:
    """A slice whose axes are `axes`: a constant, half of a constant's negative, the input's own shape, or an input."""
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["constant"], ["computed"], name="negative"),
            helper.make_node("Shape", ["fixed"], ["sizes"], name="shape"),
            helper.make_node("Shape", ["open"], ["open_sizes"], name="open_shape"),
            helper.make_node("Slice", ["fixed", "start", "end", axes], ["output"], name="/module/cut/Slice"),
        ],
        "slices",
        [
            helper.make_tensor_value_info("fixed", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("open", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("given", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array([value]), name)
            for name, value in (("constant", 0), ("start", 0), ("end", 1))
        ],
    )
    return save(graph, path)


@pytest.mark.parametrize(
    ("axes", "is_fixed"),
    [("constant", True), ("computed", True), ("sizes", True), ("open_sizes", False), ("given", False)],
)
def test_axes_have_to_be_known_when_an_engine_is_built_before_8_5(axes: str, is_fixed: bool, tmp_path: Path) -> None:
    path = slices(tmp_path / "slices.onnx", axes=axes)
    problems = check(path, version="8.2.1", has_int8=False)
    assert bool(problems) == (not is_fixed)
    assert all(
        f"layer 'cut', node '/module/cut/Slice' (Slice): its input {axes!r} is computed" in text for text in problems
    )
    assert check(path, version="8.5.2", has_int8=False) == []


@pytest.mark.parametrize(
    ("version", "kind", "scale", "words"),
    [
        ("8.2.1", TensorProto.FLOAT16, np.float16, "quantises FP32 alone"),
        ("10.3.0", TensorProto.FLOAT16, np.float32, "quantises float16 with a scale of float32"),
        ("11.1.0", TensorProto.FLOAT, np.float16, "quantises float32 with a scale of float16"),
    ],
)
def test_a_type_that_a_version_does_not_quantise_is_refused(
    version: str, kind: int, scale: type[np.floating], words: str, tmp_path: Path
) -> None:
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["output"], name="quantize")],
        "quantize",
        [helper.make_tensor_value_info("input", kind, [1, 4])],
        [helper.make_tensor_value_info("output", TensorProto.INT8, [1, 4])],
        [numpy_helper.from_array(np.asarray(0.1, scale), "scale"), numpy_helper.from_array(np.int8(0), "zero")],
    )
    (problem,) = check(save(graph, tmp_path / "q.onnx"), version=version, has_int8=True)
    assert words in problem


def test_what_stands_in_the_body_of_a_branch_is_checked_too(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("NonZero", ["input"], ["found"], name="inner")],
        "body",
        [],
        [helper.make_tensor_value_info("found", TensorProto.INT64, None)],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["sure"], ["output"], then_branch=body, else_branch=body, name="if")],
        "branch",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("output", TensorProto.INT64, None)],
        [numpy_helper.from_array(np.array(True), "sure")],
    )
    (problem,) = check(save(graph, tmp_path / "branch.onnx"), version="8.2.1", has_int8=False)
    assert "'inner' (NonZero) and 1 more" in problem
