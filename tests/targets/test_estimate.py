"""Estimates: what a graph makes a GPU do, how long that takes, and that nothing is estimated without a ground."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepress.targets import profiles
from edgepress.targets.errors import StageError
from edgepress.targets.estimate.estimating import constants, estimate, units, why_not
from edgepress.targets.estimate.kernels import Kernel, kernels
from edgepress.targets.estimate.roofline import Efficiency, Load

Builder = Callable[..., Path]
NANO = profiles.load("jetson-nano")
PLAIN = Efficiency(arithmetic={"dense": 0.5}, bandwidth=0.5, launch_us=10.0, base_ms=1.0)


def graph_of(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (1, 8, 16, 16), **weights: tuple[int, ...]) -> Any:
    constants = [numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in weights.items()]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        constants,
    )
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def node(kind: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(names[:-1]), [names[-1]], name=names[-1], **attributes)


def test_a_convolution_counts_its_products_and_what_it_moves() -> None:
    (found,) = kernels(graph_of(node("Conv", "input", "w", "output", pads=[1] * 4), w=(32, 8, 3, 3)))
    assert found == Kernel(layer="output", kind="dense", macs=32 * 16 * 16 * 8 * 9, weights=32 * 8 * 9,
                           read=8 * 16 * 16, written=32 * 16 * 16)  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "group", "kind"),
    [((8, 8, 1, 1), 1, "pointwise"), ((8, 1, 3, 3), 8, "grouped"), ((8, 8, 3, 3), 1, "dense")],
)
def test_convolutions_are_told_apart(shape: tuple[int, ...], group: int, kind: str) -> None:
    (found,) = kernels(graph_of(node("Conv", "input", "w", "output", group=group), w=shape))
    assert found.kind == kind


def test_an_activation_and_a_residual_are_computed_along_with_the_convolution_before_them() -> None:
    found = kernels(
        graph_of(
            node("Conv", "input", "w", "a", pads=[1] * 4), node("Relu", "a", "b"),
            node("Conv", "b", "w", "c", pads=[1] * 4), node("Add", "c", "b", "d"), node("Relu", "d", "output"),
            w=(8, 8, 3, 3),
        )
    )  # fmt: skip
    plane = 8 * 16 * 16
    assert [(kernel.read, kernel.written) for kernel in found] == [(plane, plane), (2 * plane, plane)]


def test_a_sigmoid_times_its_input_is_one_kernel_with_the_convolution() -> None:
    found = kernels(
        graph_of(node("Conv", "input", "w", "a"), node("Sigmoid", "a", "b"), node("Mul", "a", "b", "output"), w=(8, 8, 1, 1))
    )  # fmt: skip
    assert [kernel.kind for kernel in found] == ["pointwise"]


def test_what_only_renames_memory_costs_nothing() -> None:
    found = kernels(graph_of(node("MaxPool", "input", "a", kernel_shape=[2, 2]), node("Flatten", "a", "output")))
    assert [kernel.kind for kernel in found] == ["memory"]


def test_a_size_that_cannot_be_inferred_is_no_ground_for_an_estimate() -> None:
    unknown = graph_of(node("NonZero", "input", "found"), node("Cast", "found", "output", to=TensorProto.FLOAT))
    with pytest.raises(StageError, match=r"the size of what node 'found' \(NonZero\) makes cannot be inferred"):
        kernels(unknown)


def test_a_quantised_graph_has_the_kernels_of_the_float_one(network: Builder) -> None:
    plain, rounded = (kernels(onnx.load(network(name, activations=grid, batch=1)))
                      for name, grid in (("float", None), ("int8", np.int8)))  # fmt: skip
    weighted = [
        [(kernel.kind, kernel.macs, kernel.weights) for kernel in found if kernel.macs] for found in (plain, rounded)
    ]
    assert weighted[0] == weighted[1]
    assert len(weighted[0]) == 2


def test_a_kernel_takes_as_long_as_the_slower_of_arithmetic_and_memory_and_its_launch() -> None:
    busy = Kernel(layer="a", kind="dense", macs=1e9, read=1e3)
    moving = Kernel(layer="b", kind="memory", read=1e7)
    load = Load([busy, moving])
    times = load.kernels_ms(PLAIN, precision="fp16", peak_gmacs=100, bandwidth_gb_s=10)
    assert times.tolist() == pytest.approx([1e9 / (100e6 * 0.5) + 0.01, 2e7 / (10e6 * 0.5) + 0.01])
    total = load.milliseconds(PLAIN, precision="fp16", peak_gmacs=100, bandwidth_gb_s=10)
    assert total == pytest.approx(sum(times) + 1.0)


def test_an_estimate_is_an_interval_around_its_value(network: Builder) -> None:
    found = estimate(network(batch=1), profile=NANO, precision="fp16")
    factor = constants()["cuda cores"].factor
    assert (found.low_ms, found.high_ms) == pytest.approx((found.ms / factor, found.ms * factor))
    assert "published latencies" in found.basis


def test_a_larger_network_is_estimated_slower(network: Builder) -> None:
    small, large = (estimate(network(f"n{width}", channels=width, batch=1), profile=NANO, precision="fp16").ms
                    for width in (8, 4096))  # fmt: skip
    assert small < large


def test_a_slower_board_is_estimated_slower(network: Builder) -> None:
    path = network(channels=2048, batch=1)
    times = [estimate(path, profile=profiles.load(name), precision="fp16").ms for name in ("jetson-nano", "jetson-tx2")]
    assert times[0] > times[1]


def test_tensor_cores_count_below_fp32_where_there_are_some_and_for_fp32_since_ampere() -> None:
    found = {name: [units(profiles.load(name), precision) for precision in ("fp32", "fp16", "int8")]
             for name in ("jetson-nano", "jetson-xavier-nx", "jetson-orin-nano")}  # fmt: skip
    assert found == {
        "jetson-nano": ["cuda cores"] * 3,
        "jetson-xavier-nx": ["cuda cores", "tensor cores", "tensor cores"],
        "jetson-orin-nano": ["tensor cores"] * 3,
    }


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        ("openvino-cpu", "fp32", "calibrated for TensorRT"),
        ("jetson-thor", "fp16", "does not say its peak_gmacs in fp16"),
        ("jetson-nano", "int8", "does not say its peak_gmacs in int8"),
    ],
)
def test_without_a_ground_there_is_no_estimate(name: str, precision: str, words: str, network: Builder) -> None:
    profile = profiles.load(name)
    assert words in (why_not(profile, precision) or "")
    with pytest.raises(StageError, match="no estimate"):
        estimate(network(batch=1), profile=profile, precision=precision)


def test_the_constants_say_what_they_rest_on() -> None:
    for entry in constants().values():
        assert entry.sources
        assert entry.rows >= 10
        assert all(share < 1 for share in (*entry.arithmetic.values(), entry.bandwidth))
