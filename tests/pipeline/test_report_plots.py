"""The drawings show what was measured, in the page's own colours."""

import re
import warnings

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import sample_report

from edgepress.pipeline.report import canvas, plots, tradeoff
from edgepress.pipeline.report.elements import Markup
from edgepress.pipeline.report.schema import Limit, Report
from edgepress.pipeline.report.waterfall import waterfalls


def drawn(report: Report) -> dict[str, Markup | None]:
    with canvas.style():
        return {
            "tradeoff": tradeoff.tradeoff(report, "device"),
            "distributions": plots.distributions(report, "device"),
            "steadiness": plots.steadiness(report, "device"),
            "memory": plots.memory(report, "device"),
            **dict(waterfalls(report, "device")),
        }


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(1, 100)), min_size=1, max_size=12))
def test_nothing_beats_a_point_of_the_front_and_everything_else_is_beaten(points: list[tuple[float, float]]) -> None:
    front = tradeoff.pareto(points)

    def is_beaten(point: tuple[float, float]) -> bool:
        return any(a <= point[0] and b >= point[1] and (a, b) != point for a, b in points)

    assert not any(is_beaten(point) for point in front)
    assert all(is_beaten(point) for point in set(points) - set(front))


@given(st.floats(1e-3, 1e3), st.floats(1.05, 1e3))
def test_ticks_lie_inside_and_are_few(low: float, factor: float) -> None:
    ticks = canvas.ticks_of_log(low, low * factor)
    assert all(low <= tick <= low * factor for tick in ticks)
    assert len(ticks) <= 8
    assert list(ticks) == sorted(ticks)


def test_a_drawing_has_only_the_page_s_colours_and_fonts() -> None:
    for drawing in drawn(sample_report()).values():
        assert drawing is not None
        assert not re.search(r"#[0-9a-f]{6}", drawing)
        assert "font-family" not in drawing
        assert "var(--" in drawing


def test_names_stay_text_in_a_drawing() -> None:
    report = sample_report()
    report.variants[1] = report.variants[1].model_copy(update={"name": "$\\frac{a<b$ 模型"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing = drawn(report)["tradeoff"]
    assert drawing is not None
    assert "$\\frac{a&lt;b$ 模型</text>" in drawing


def test_the_budget_is_a_line_for_each_limit_that_has_an_axis() -> None:
    report = sample_report()

    def lines(**limits: float) -> int:
        budget = {name: Limit(limit=limit, value=None, met=None, why="") for name, limit in limits.items()}
        drawing = drawn(report.model_copy(update={"budget": budget}))["tradeoff"]
        assert drawing is not None
        return drawing.count(">budget</text>")

    assert lines() == 0
    assert lines(size_mb=1.0, memory_mb=10.0) == 0
    assert lines(latency_ms=0.2) == 1
    assert lines(latency_ms=0.2, speedup=3.0, accuracy=97.0, accuracy_drop=1.0) == 4


def test_what_has_no_figures_has_no_drawing() -> None:
    report = sample_report()
    with canvas.style():
        assert tradeoff.tradeoff(report, "estimated") is None
        assert plots.distributions(report, "estimated") is None
        assert plots.steadiness(report, "estimated") is None
        assert plots.memory(report, "estimated") is None
    assert [title for title, _ in waterfalls(report, "estimated")] == ["File size, MiB"]


def test_a_series_without_a_finite_value_still_has_its_axes() -> None:
    with canvas.style():
        drawing = plots.curve([None, None], key="k", label="loss of train")
    assert drawing.startswith("<svg ")


def test_the_same_report_gives_the_same_drawing() -> None:
    assert drawn(sample_report()) == drawn(sample_report())


def test_the_user_s_own_style_is_neither_used_nor_changed() -> None:
    plain = drawn(sample_report())["memory"]
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "lines.linewidth": 9}):
        assert drawn(sample_report())["memory"] == plain
        assert mpl.rcParams["font.size"] == 30


def test_more_variants_than_colours_never_borrow_the_baseline_s() -> None:
    assert canvas.series_name(0) == "s0"
    assert len({canvas.series_name(index) for index in range(canvas.SERIES)}) == canvas.SERIES
    assert "s0" not in {canvas.series_name(index) for index in range(1, 40)}


@pytest.mark.parametrize("count", [1, 2, 12])
def test_any_number_of_variants_can_be_drawn(count: int) -> None:
    report = sample_report()
    variants = [report.variants[index % 4].model_copy(update={"name": f"variant-{index}"}) for index in range(count)]
    shown = drawn(report.model_copy(update={"variants": variants}))
    assert shown["tradeoff"] is not None
    # all of them in the spoken label, and those beside their points that cover no other
    assert count + min(count, 4) <= shown["tradeoff"].count("variant-") <= 2 * count
