"""Each cause is named where it is one, and kept quiet where it is none."""

from __future__ import annotations

from typing import Any

from edgepress.targets.explain import Twin, causes, explanation
from edgepress.targets.layers import Layer, LayerTimes

WITH_VNNI = {"instruction_sets": ["avx2", "avx512_vnni"]}
SLOWER, FASTER = (0.9, 0.88, 0.92), (2.0, 1.9, 2.1)


def layer(name: str, ms: float, *, precision: str = "int8", **changes: Any) -> Layer:
    values = {"node": name, "layer": name, "kind": "Convolution", "role": "weighted"}
    return Layer(**{**values, "precision": precision, "ms": ms, **changes})


def times(*found: Layer) -> LayerTimes:
    return LayerTimes(layers=found, runs=100)


def said(
    now: LayerTimes,
    *,
    before: LayerTimes | None = None,
    latency_ms: float | None = None,
    runtime: str = "openvino",
    machine: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
) -> list[str]:
    twin = Twin(name="pruned", times=before, ratio=SLOWER)
    return causes(
        now, twin, latency_ms=latency_ms, runtime=runtime, machine=machine or WITH_VNNI, environment=environment or {}
    )


def test_layers_that_ran_in_float_are_counted_and_named() -> None:
    (text,) = said(times(layer("a", 1.0), layer("b", 3.0, precision="fp32"), layer("c", 1.0, precision="fp32")))
    assert (
        text
        == "2 of 3 layers with weights run in float, 80 % of the time: b (Convolution, 3 ms), c (Convolution, 1 ms)"
    )


def test_conversions_are_told_with_their_share_and_the_costliest() -> None:
    (text,) = said(times(layer("a", 3.0), layer("input of a", 1.0, role="conversion", kind="Reorder")))
    assert "25 % of the time goes into 1 conversions" in text
    assert "input of a (Reorder, 1 ms)" in text


def test_nodes_that_onnx_runtime_could_not_fuse_are_called_by_their_name() -> None:
    found = times(layer("a", 1.0, precision="fp32"), layer("q", 1.0, role="conversion", kind="QuantizeLinear"))
    assert any("could not fuse" in text and "ort-u8" in text for text in said(found, runtime="onnxruntime"))
    assert not any("could not fuse" in text for text in said(found, runtime="openvino"))


def test_nodes_that_leave_layers_in_float_are_told_however_little_time_they_take() -> None:
    found = times(layer("a", 100.0, precision="fp32"), layer("q", 1.0, role="conversion", kind="QuantizeLinear"))
    assert any("could not fuse" in text for text in said(found, runtime="onnxruntime"))
    fused = times(layer("a", 100.0), layer("q", 1.0, role="conversion", kind="QuantizeLinear"))
    assert said(fused, runtime="onnxruntime") == []


def test_a_conversion_that_costs_next_to_nothing_is_no_cause() -> None:
    assert said(times(layer("a", 100.0), layer("r", 1.0, role="conversion", kind="Reorder"))) == []


def test_depthwise_layers_that_gained_nothing_are_a_cause() -> None:
    now = times(layer("dw", 2.0, depthwise=True), layer("pw", 2.0))
    before = times(layer("dw", 2.1, depthwise=True, precision="fp32"), layer("pw", 4.0, precision="fp32"))
    (text,) = said(now, before=before)
    assert text.startswith("50 % of the time is depthwise convolution")
    assert "2.1 ms in float, 2 ms in INT8" in text


def test_depthwise_layers_that_became_faster_are_none() -> None:
    now = times(layer("dw", 1.0, depthwise=True))
    assert said(now, before=times(layer("dw", 2.1, depthwise=True, precision="fp32"))) == []


def test_layers_that_became_slower_in_int8_are_named_with_both_times() -> None:
    now = times(layer("a", 3.0), layer("b", 1.0))
    (text,) = said(now, before=times(layer("a", 2.0, precision="fp32"), layer("b", 4.0, precision="fp32")))
    assert text == "1 of 2 other INT8 layers are slower than in float: a 2 to 3 ms"


def test_a_small_model_is_told_apart_from_slow_layers() -> None:
    (text,) = said(times(layer("a", 0.01)), latency_ms=0.1)
    assert text.startswith("the model is small: 90 %")
    assert said(times(layer("a", 0.09)), latency_ms=0.1) == []


def test_a_processor_without_byte_products_is_a_cause() -> None:
    (text,) = said(times(layer("a", 1.0)), machine={"instruction_sets": ["avx2"]})
    assert "no instructions for sums of byte products" in text


def test_instructions_that_the_profile_forbids_count_as_absent() -> None:
    (text,) = said(times(layer("a", 1.0)), environment={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in text


def test_the_costliest_cause_stands_first() -> None:
    found = said(
        times(layer("a", 1.0), layer("b", 2.0, precision="fp32"), layer("r", 7.0, role="conversion", kind="Reorder"))
    )
    assert [text.split(" ")[0] for text in found] == ["70", "1"]


def test_a_faster_variant_needs_no_explanation() -> None:
    assert explanation("int8", Twin(name="pruned", times=None, ratio=FASTER), ["something"]) is None
    assert explanation("int8", Twin(name="pruned", times=None, ratio=None), ["something"]) is None


def test_a_slower_one_is_explained_in_one_sentence() -> None:
    text = explanation("int8", Twin(name="pruned", times=None, ratio=SLOWER), ["one thing", "another"])
    assert text == (
        "INT8 is not faster than pruned (0.90 times as fast, interval 0.88 to 0.92) because one thing; another"
    )


def test_where_nothing_was_found_that_is_said() -> None:
    text = explanation("int8", Twin(name="pruned", times=None, ratio=SLOWER), [])
    assert text is not None
    assert text.endswith("the runtime's counters do not show why")
