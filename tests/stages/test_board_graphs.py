"""The files for Jetson boards, rule by rule: what TensorRT's parsers ask of a graph with Q/DQ, and of one without.

Rules: onnx-tensorrt 8.2-GA, QuantDequantLinearHelper; NVIDIA, pytorch-quantization, "Quantizing ResNet50"; Model-Optimizer,
quantization/ort_utils.py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from nets import CLASSES
from torch import Tensor, nn

from edgepress.stages.builtin import Teacher
from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.quantization.frozen import freeze
from edgepress.stages.quantization.prepare import prepare
from edgepress.stages.quantization.qat import scheme_for
from edgepress.stages.quantization.ranges import calibrate_
from edgepress.stages.twins import computes_in_half
from edgepress.targets import profiles
from edgepress.targets.graphs import Graph
from edgepress.targets.operator_tables import supported
from edgepress.targets.operators import check
from edgepress.targets.profiles import Profile
from edgepress.targets.runtimes import target

NANO, ORIN = profiles.load("jetson-nano"), profiles.load("jetson-orin-nano")
XAVIER = ORIN.model_copy(update={"runtime_version": "8.5.2"})
ELEVEN = ORIN.model_copy(update={"runtime_version": "11.1.0", "opset": 19})
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_model.py"


def cifar() -> tuple[nn.Module, Tensor]:
    spec = importlib.util.spec_from_file_location("my_model_of_the_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.resnet20(), torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def mnist() -> tuple[nn.Module, Tensor]:
    return Teacher(CLASSES, width=16), torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))


class Dead(nn.Module):
    """A convolution of which a channel is dead, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.head = nn.Linear(8, CLASSES)
        nn.init.zeros_(self.conv.weight[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))


def dead() -> tuple[nn.Module, Tensor]:
    return Dead(), torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {"mnist": mnist, "cifar": cifar}


def float_file(folder: Path, network: Callable[[], tuple[nn.Module, Tensor]], profile: Profile) -> Path:
    torch.manual_seed(0)
    module, images = network()
    path = folder / "half.onnx"
    write_onnx(
        module.eval(), path, example=images, opset=profile.opset, dynamic_batch=False, metadata={},
        half=computes_in_half("fp16", profile), tensorrt=profile.runtime_version,
    )  # fmt: skip
    return path


def int8_file(folder: Path, network: Callable[[], tuple[nn.Module, Tensor]], profile: Profile) -> Path:
    torch.manual_seed(0)
    module, images = network()
    scheme = scheme_for(profile)
    prepared = prepare(module.eval(), scheme)
    calibrate_(prepared, [images])
    path = folder / "int8.onnx"
    write_onnx(
        freeze(prepared, scheme), path, example=images, opset=profile.opset, dynamic_batch=False, metadata={},
        half=computes_in_half("int8", profile), tensorrt=profile.runtime_version,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def nano(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return float_file(tmp_path_factory.mktemp("nano"), NETWORKS[request.param], NANO)


@pytest.fixture(scope="module", params=[(name, version) for name in sorted(NETWORKS) for version in ("8.5.2", "10.3.0")],
                ids=str)  # fmt: skip
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INT8 file for a board that has INT8, for an old and a newer TensorRT."""
    name, version = request.param
    profile = XAVIER if version == XAVIER.runtime_version else ORIN
    found = int8_file(tmp_path_factory.mktemp("int8"), NETWORKS[name], profile)
    assert check(found, version=version, has_int8=True) == []
    return found


@pytest.fixture
def graph(path: Path) -> Graph:
    return Graph(onnx.load(path))


def of(graph: Graph, *kinds: str) -> list[Any]:
    return [node for node in graph.nodes if node.op_type in kinds]


def behind(graph: Graph, name: str) -> Any | None:
    """The node that makes a tensor; for one that was rounded, the node before the rounding."""
    maker = graph.makers.get(name)
    while maker is not None and maker.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        maker = graph.makers.get(maker.input[0])
    return maker


def is_rounded(graph: Graph, name: str) -> bool:
    maker = graph.makers.get(name)
    return maker is not None and maker.op_type == "DequantizeLinear"


def test_the_nano_gets_opset_13_and_only_operators_that_8_2_knows(nano: Path) -> None:
    model = onnx.load(nano)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [13]
    assert {node.op_type for node in model.graph.node} <= supported("8.2.1")
    assert check(nano, version="8.2.1", has_int8=False) == []


def test_the_nano_gets_no_quantise_and_no_dequantise(nano: Path) -> None:
    assert of(Graph(onnx.load(nano)), "QuantizeLinear", "DequantizeLinear") == []


def test_the_nano_gets_fp16_between_a_float32_input_and_a_float32_output(nano: Path) -> None:
    graph = Graph(onnx.load(nano))
    weighted = of(graph, "Conv", "Gemm", "MatMul")
    assert weighted
    assert {graph.kind(name) for node in weighted for name in (*node.input, *node.output)} == {"float16"}
    assert (graph.kind("input"), graph.kind("output")) == ("float32", "float32")


def test_quantise_and_dequantise_have_three_inputs_and_as_many_zero_points_as_scales(graph: Graph) -> None:
    for node in of(graph, "QuantizeLinear", "DequantizeLinear"):
        assert len(node.input) == 3
        assert graph.shape(node.input[1]) == graph.shape(node.input[2])


def test_zero_points_are_int8_and_zero(graph: Graph) -> None:
    for node in of(graph, "QuantizeLinear", "DequantizeLinear"):
        zero = graph.value(node.input[2])
        assert zero is not None
        assert (zero.dtype, zero.any()) == (np.int8, False)


def test_scales_are_above_zero(graph: Graph) -> None:
    for node in of(graph, "QuantizeLinear", "DequantizeLinear"):
        scale = graph.value(node.input[1])
        assert scale is not None
        assert (scale > 0).all()


@pytest.mark.parametrize("profile", [XAVIER, ORIN, ELEVEN], ids=lambda profile: profile.runtime_version)
def test_a_dead_channel_has_a_scale_above_zero_too(profile: Profile, tmp_path: Path) -> None:
    graph = Graph(onnx.load(int8_file(tmp_path, dead, profile)))
    scales = [graph.value(node.input[1]) for node in of(graph, "DequantizeLinear")]
    assert all(scale is not None and (scale > 0).all() for scale in scales)


def test_activations_have_one_scale_and_weights_one_for_each_output_channel(graph: Graph) -> None:
    for node in of(graph, "Conv", "Gemm"):
        activation, weight = (graph.makers[name] for name in node.input[:2])
        assert graph.shape(activation.input[1]) in {(), (1,)}
        channels = graph.shape(node.output[0])
        assert channels is not None
        assert graph.shape(weight.input[1]) == (channels[1],)


def test_scales_of_weights_run_along_the_outputs(graph: Graph) -> None:
    for node in of(graph, "Conv", "Gemm"):
        weight = graph.makers[node.input[1]]
        assert next(item.i for item in weight.attribute if item.name == "axis") == 0


def test_integers_of_weights_are_symmetric(graph: Graph) -> None:
    """-128 has no partner."""
    for node in of(graph, "Conv", "Gemm"):
        weight = graph.makers[node.input[1]]
        stored = graph.value(weight.input[0])
        if stored is None:  # float weights, then Q, then DQ
            quantize = graph.makers[weight.input[0]]
            floats, scale = graph.value(quantize.input[0]), graph.value(quantize.input[1])
            assert floats is not None
            assert scale is not None
            stored = np.round(floats / scale.reshape(-1, *[1] * (floats.ndim - 1)))
        assert np.abs(stored.astype(int)).max() <= 127


def test_weights_are_float_then_q_then_dq_for_tensorrt_8(tmp_path: Path) -> None:
    graph = Graph(onnx.load(int8_file(tmp_path, mnist, XAVIER)))
    for node in of(graph, "Conv", "Gemm"):
        dequantize = graph.makers[node.input[1]]
        quantize = graph.makers[dequantize.input[0]]
        assert [dequantize.op_type, quantize.op_type] == ["DequantizeLinear", "QuantizeLinear"]
        assert graph.constants[quantize.input[0]].data_type == onnx.TensorProto.FLOAT


def test_biases_stay_float(graph: Graph) -> None:
    biases = [node.input[2] for node in of(graph, "Conv", "Gemm") if len(node.input) > 2]
    assert biases
    assert {graph.constants[name].data_type for name in biases} == {onnx.TensorProto.FLOAT}


def test_no_operator_is_an_integer_one(graph: Graph) -> None:
    assert not of(graph, "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")


def test_every_weighted_layer_reads_a_rounded_activation_and_rounded_weights(graph: Graph) -> None:
    for node in of(graph, "Conv", "Gemm"):
        assert [is_rounded(graph, name) for name in node.input[:2]] == [True, True]


def test_nothing_is_rounded_between_convolution_batch_norm_and_relu(graph: Graph) -> None:
    assert of(graph, "BatchNormalization") == []
    for node in of(graph, "Relu"):
        before = graph.makers[node.input[0]]
        assert before.op_type in {"Conv", "Gemm", "Add"}


def test_outputs_are_rounded_only_for_who_reads_them_rounded(graph: Graph) -> None:
    """No pair behind a layer whose reader would take the float."""
    readers = {"Conv", "Gemm", "Add", "DequantizeLinear"}
    for node in of(graph, "QuantizeLinear", "DequantizeLinear"):
        assert {user.op_type for user in graph.users[node.output[0]]} <= readers


def test_a_residual_addition_reads_its_skip_rounded_and_its_convolution_as_it_is(graph: Graph) -> None:
    additions = of(graph, "Add")
    assert additions
    for node in additions:
        convolved = [graph.makers[name].op_type == "Conv" for name in node.input]
        rounded = [is_rounded(graph, name) for name in node.input]
        assert sorted(zip(convolved, rounded, strict=True)) == [(False, True), (True, False)]


def test_one_producer_is_rounded_once_for_all_its_readers(graph: Graph) -> None:
    sources = [node.input[0] for node in of(graph, "QuantizeLinear")]
    assert len(set(sources)) == len(sources)


def test_the_last_layer_answers_in_float(graph: Graph) -> None:
    assert graph.makers["output"].op_type == "Gemm"


def test_no_convolution_is_rounded_that_is_too_small_for_a_kernel_in_int8(graph: Graph) -> None:
    """Model-Optimizer, graph_utils.find_nodes_from_convs_to_exclude, of convolutions that are not grouped."""
    for node in of(graph, "Conv"):
        outputs, inputs, high, wide = graph.shape(graph.makers[node.input[1]].input[0]) or (0, 0, 0, 1)
        is_first = graph.makers[graph.makers[node.input[0]].input[0]].input[0] == "input"
        is_wide = inputs >= 16 and outputs >= 16
        one_side_fits = (inputs % 8 == 0 or outputs % 8 == 0) and (is_first or inputs >= 16 or outputs >= 16)
        assert is_wide or (one_side_fits and high == wide), node.name


def test_nothing_but_layers_and_residuals_is_rounded(graph: Graph) -> None:
    """No pooling, resizing or normalisation of its own."""
    weighted = {"Conv", "Gemm", "Add"}
    rounded = {user.op_type for node in of(graph, "DequantizeLinear") for user in graph.users[node.output[0]]}
    assert rounded <= weighted


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_for_eleven_the_rest_of_an_int8_graph_is_fp16(name: str, tmp_path: Path) -> None:
    graph = Graph(onnx.load(int8_file(tmp_path, NETWORKS[name], ELEVEN)))
    assert check(tmp_path / "int8.onnx", version="11.1.0", has_int8=True) == []
    inside = {entry for node in graph.nodes for entry in (*node.input, *node.output)} - {"input", "output", ""}
    allowed = {graph.kind(entry) for entry in inside if graph.kind(entry) not in {"int64", "bool"}}
    islands = {entry for node in of(graph, "ReduceMean") for entry in (*node.input, *node.output)}  # sums of many
    assert allowed <= {"float16", "int8", "float32"}
    assert {entry for entry in inside if graph.kind(entry) == "float32"} <= islands
    assert len(of(graph, "QuantizeLinear")) >= 4


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_int8_with_fp16_answers_like_int8_with_float(name: str, tmp_path: Path) -> None:
    _, images = NETWORKS[name]()
    answers = []
    for profile in (ORIN, ELEVEN):
        session = target("onnxruntime").load(int8_file(tmp_path, NETWORKS[name], profile), precision="fp32", threads=1)
        answers.append(np.concatenate([session(image[None])[0] for image in images.numpy()]))
        session.close()
    assert np.abs(answers[0] - answers[1]).max() < 0.05 * np.abs(answers[0]).max()
