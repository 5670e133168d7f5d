"""The report shows where the time goes, which layer diverges, and what is no stage of its own."""

from __future__ import annotations

import io

import pytest
from report_sample import sample_report
from rich.console import Console

from edgepress.pipeline.report import html, markdown, terminal, waterfall
from edgepress.pipeline.report.layers import kind, top_rows
from edgepress.pipeline.report.schema import Divergence, DivergencePoint, LayerTime, LayerTimes, Parity, Report


def layer(name: str, ms: float, *, precision: str = "fp32", role: str = "weighted") -> LayerTime:
    return LayerTime(layer=name, type="Conv", precision=precision, role=role, ms=ms, share=ms)  # type: ignore[arg-type]


def times(*layers: LayerTime) -> LayerTimes:
    return LayerTimes(
        total_ms=sum(one.ms for one in layers), runs=9, int8_share=0.5, conversion_share=0.2, layers=list(layers)
    )


def report() -> Report:
    """The sample with the layers of its baseline and its chosen variant."""
    found = sample_report()
    found.variants[0].layers = times(*(layer(f"slow.{number}", 1.0 / (number + 2)) for number in range(20)))
    found.variants[3].layers = times(
        layer("fast.<0>", 0.5, precision="int8"), layer("input of fast", 0.2, role="conversion"), layer("tiny", 0.0)
    )
    return found


def test_the_page_shows_the_layers_before_and_after() -> None:
    page = html.html(report())
    assert 'id="layers"' in page
    assert "Before: baseline" in page
    assert "After: int8" in page
    assert "Costliest layers of int8: fast.&lt;0&gt; 0.500 ms in INT8" in page
    assert "6 others" in page


def test_a_layer_that_is_too_fast_to_be_counted_is_not_said_to_take_nothing() -> None:
    assert top_rows(report().variants[3], 3)[2] == ("tiny", "Conv", "fp32", "below 0.001 ms", "0 %")


def test_without_layer_times_the_section_says_not_measured() -> None:
    page = html.html(sample_report())
    assert "The time of single layers: not measured." in page


def test_the_markdown_has_the_costliest_layers_of_both() -> None:
    text = markdown.markdown(report())
    assert "### Time by layer" in text
    assert "| slow.0 | Conv | fp32 |" in text
    assert "fast.&lt;0&gt;" in text
    assert "slow.5" not in text
    assert "Time by layer" not in markdown.markdown(sample_report())


def with_floats() -> Report:
    """The sample, whose quantize stage did not train and gave a layer back."""
    found = report()
    stage = next(stage for stage in found.stages if stage.name == "quantize")
    stage.metrics["training_skipped"] = "mode is ptq"
    stage.metrics["training_seconds_saved"] = 72.0
    layer_facts = {"layer": "block.<1>", "loss": 0.25, "sqnr_db": 11.5, "gain_ms": None}
    stage.metrics["fallback"] = {"sentence": "1 of 9 layers went back to float", "float_layers": [layer_facts]}
    return found


@pytest.mark.parametrize("form", ["page", "markdown", "terminal"])
def test_what_went_back_to_float_and_what_was_not_trained_is_shown_everywhere(form: str) -> None:
    def told(found: Report) -> str:
        if form == "terminal":
            console = Console(width=160, record=True, file=io.StringIO())
            terminal.print_report(found, console)
            return console.export_text()
        return html.html(found) if form == "page" else markdown.markdown(found)

    text = told(with_floats())
    assert "Not trained with the rounding in place: mode is ptq; that saved about" in text
    assert "1 of 9 layers went back to float." in text
    assert ("block.<1>" if form == "terminal" else "block.&lt;1&gt;") in text
    assert "Not trained with the rounding" not in told(report())


def test_a_conversion_is_one_in_every_precision() -> None:
    assert kind(layer("a", 1.0, precision="int8", role="conversion")) == "conversion"
    assert [kind(layer("a", 1.0, precision=name)) for name in ("int8", "bf16", "fp16", "fp32")] == [
        "INT8", "16 bits", "16 bits", "float"
    ]  # fmt: skip


def test_another_precision_of_a_variant_is_no_bar_of_the_waterfall() -> None:
    found = sample_report()
    twin = found.variants[2].model_copy(update={"name": "pruned-bf16", "twin_of": "pruned"})
    found.variants.insert(3, twin)
    drawn = "".join(markup for _, markup in waterfall.waterfalls(found, "device"))
    assert "pruned" in drawn
    assert "pruned-bf16" not in drawn


def test_parity_stands_in_three_columns_with_signal_to_noise() -> None:
    found = sample_report()
    found.variants[3].exported_parity = Parity(argmax_agreement=0.99, max_abs_diff=0.1, n=256, ok=True)
    found.variants[3].parity = Parity(argmax_agreement=0.5, max_abs_diff=9.0, n=449, ok=False, sqnr_db=-3.21)
    page = html.html(found)
    assert "ONNX file against torch" in page
    assert "agrees 99.0 %" in page
    assert "differs 50.0 %" in page
    assert "−3.2 dB" in page


def test_a_divergence_names_its_layer_and_every_compared_tensor() -> None:
    found = sample_report()
    point = DivergencePoint(layer="block.conv1", tensor="t1", sqnr_db=-9.5, lost_db=39.5)
    found.variants[3].divergence = Divergence(
        sentence="it diverges first at block.conv1", layer="block.conv1", tensor="t1", points=[point]
    )
    page = html.html(found)
    assert "Where int8 goes wrong" in page
    assert "it diverges first at block.conv1" in page
    assert "39.5 dB" in page
