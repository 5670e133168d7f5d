"""Where the time goes: read from the runtimes themselves, on networks made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgepress.targets import layers, ort_layers, tracing
from edgepress.targets.errors import RuntimeMissingError
from edgepress.targets.jobs import Engine
from edgepress.targets.layers import Layer, LayerTimes

Builder = Callable[..., Path]
Images = NDArray[np.float32]
RUNTIMES = ("onnxruntime", "openvino")


def engine(path: Path, runtime: str, *, precision: str = "fp32") -> Engine:
    return Engine(name=path.stem, path=path, runtime=runtime, precision=precision)


def read(path: Path, runtime: str, sample: Images, *, precision: str = "fp32") -> LayerTimes:
    return tracing.trace(layers.read(engine(path, runtime, precision=precision), sample, seconds=0.02), path)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_weighted_layer_of_a_float_model_runs_in_float_and_keeps_its_name(
    runtime: str, network: Builder, images: Images
) -> None:
    times = read(network(channels=64, batch=1), runtime, images[:1])
    assert {layer.layer for layer in times.weighted()} == {"conv", "linear"}
    assert {layer.precision for layer in times.weighted()} == {"fp32"}
    assert times.int8_share == 0.0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_parts_of_a_quantized_model_that_run_in_int8_are_told(
    runtime: str, network: Builder, images: Images
) -> None:
    times = read(network(channels=256, batch=1, activations=np.uint8), runtime, images[:1], precision="int8")
    by_name = {layer.layer: layer for layer in times.weighted()}
    assert by_name["conv"].precision == "int8"
    assert by_name["linear"].precision == "fp32"  # its weight is not quantised
    assert times.int8_share > 0.0


def test_what_the_runtime_puts_between_precisions_is_a_conversion(network: Builder, images: Images) -> None:
    times = read(network(channels=64, batch=1, activations=np.uint8), "onnxruntime", images[:1], precision="int8")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {
        layer.kind for layer in times.layers if layer.role == "conversion"
    }
    assert "input of conv" in {layer.layer for layer in times.layers}
    assert 0.0 < times.conversion_share < 1.0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_shares_add_up_to_one_and_the_costliest_layer_stands_first(
    runtime: str, network: Builder, images: Images
) -> None:
    found = layers.facts(read(network(channels=64, batch=1), runtime, images[:1]))
    shares = [layer["share"] for layer in found["layers"]]
    assert sum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares, reverse=True)


def test_one_engine_that_cannot_be_read_does_not_cost_the_others_their_layers(
    network: Builder, images: Images, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.onnx"
    good = network(batch=1)
    found = layers.measure_layers(
        [engine(missing, "onnxruntime"), engine(good, "onnxruntime")], sample=images[:1], seconds=0.01
    )
    assert "no model at" in found.problems["missing"]
    assert found.times[good.stem].total_ms > 0


def test_a_runtime_that_is_not_here_tells_no_layers_and_says_why(
    network: Builder, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_LIBCUDA", "/no/libcuda.so.1")
    with pytest.raises(RuntimeMissingError, match="there is no NVIDIA GPU here"):
        layers.read(engine(network(), "tensorrt"), images[:1], seconds=0.01)


def test_layer_times_survive_their_way_between_processes() -> None:
    times = LayerTimes(layers=(Layer(node="a", kind="Conv", precision="fp32", ms=0.5, sources=("b", "c")),), runs=7)
    assert layers.unpack(layers.pack(times)) == times


def test_only_a_runtime_that_tells_has_an_arena(network: Builder, images: Images) -> None:
    told = read(network(channels=64, batch=1), "onnxruntime", images[:1]).arena_mb
    assert told is not None
    assert 0.01 < told < 500
    assert read(network(channels=64, batch=1), "openvino", images[:1]).arena_mb is None


def test_the_first_runs_and_single_interruptions_do_not_count() -> None:
    durations = [9000, 900, 90, 40, 30, *[10, 12] * 20, 5000]
    events: list[dict[str, Any]] = [
        {"cat": "Node", "name": "conv_kernel_time", "dur": duration, "args": {"op_name": "Conv", "node_index": "3"}}
        for duration in durations
    ]
    (layer,) = ort_layers.from_events([*events, {"cat": "Session", "name": "model_run"}], runs=len(durations)).layers
    assert layer.ms == pytest.approx(0.011, abs=0.001)


def traced_like_torch(path: Path) -> Path:
    """A depthwise convolution and a ReLU with the names that torch's exporter gives."""
    nodes = [
        helper.make_node("Conv", ["input", "module.layer1.0.conv.weight"], ["/module/layer1/layer1.0/conv/Conv_output_0"],
                         name="/module/layer1/layer1.0/conv/Conv", group=4, pads=[1] * 4),
        helper.make_node("Relu", ["/module/layer1/layer1.0/conv/Conv_output_0"], ["output"], name="/module/layer1/layer1.0/act/Relu"),
    ]  # fmt: skip
    weight = numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "module.layer1.0.conv.weight")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), str(path))
    return path


def test_names_lead_back_to_the_users_model(tmp_path: Path) -> None:
    found = tracing.origins(traced_like_torch(tmp_path / "one.onnx"))
    assert found["/module/layer1/layer1.0/conv/Conv"].layer == "layer1.0.conv"
    assert found["/module/layer1/layer1.0/act/Relu"].layer == "layer1.0.act"
    assert found["/module/layer1/layer1.0/conv/Conv"].depthwise


def test_an_activation_that_was_fused_is_counted_with_its_layer(tmp_path: Path) -> None:
    path = traced_like_torch(tmp_path / "one.onnx")
    fused = Layer(
        node="output_nchwc", kind="Conv", precision="fp32", ms=1.0, sources=("output_nchwc",), role="weighted"
    )
    (layer,) = tracing.trace(LayerTimes(layers=(fused,), runs=1), path).layers
    assert layer.layer == "layer1.0.conv"
    assert layer.depthwise


def test_a_transpose_that_the_runtime_added_is_a_conversion(tmp_path: Path) -> None:
    path = traced_like_torch(tmp_path / "one.onnx")
    added = Layer(node="Transpose_token_6", kind="Transpose", precision="fp32", ms=1.0, sources=("Transpose_token_6",))
    (layer,) = tracing.trace(LayerTimes(layers=(added,), runs=1), path).layers
    assert (layer.role, layer.layer) == ("conversion", "added by the runtime")
