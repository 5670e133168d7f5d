"""Estimates have a heading of their own, stand in no column of measurements, and judge no limit."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from report_sample import sample_report
from rich.console import Console

from edgepress.pipeline.estimates import WHAT, estimates_of
from edgepress.pipeline.report import estimated
from edgepress.pipeline.report.html import contents, html
from edgepress.pipeline.report.markdown import markdown
from edgepress.pipeline.report.schema import Estimated, Report
from edgepress.pipeline.report.terminal import print_report
from edgepress.stages.artifact import ExportedFile
from edgepress.targets import profiles

ONE = Estimated(variant="pruned", precision="fp16", ms=12.25, interval=(9.5, 16.25), basis="a roofline")


def with_estimates(*, where: str = "stand-in") -> Report:
    text = sample_report().as_json()
    for other in ("device", "stand-in"):
        text = text.replace(f'"where":"{other}"', f'"where":"{where}"')
    return Report.model_validate_json(text).model_copy(update={"estimates": [ONE]})


def on_a_terminal(report: Report) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    print_report(report, console)
    return console.export_text()


def test_every_rendering_has_them_under_a_heading_of_their_own() -> None:
    report = with_estimates()
    for text in (markdown(report), html(report), on_a_terminal(report)):
        assert estimated.TITLE in text
        assert "9.50 to 16.2" in text
    assert ("estimates", estimated.TITLE) in contents(report)
    assert f"### {estimated.TITLE}" in markdown(report)


def test_no_table_of_measurements_holds_one() -> None:
    plain, more = (
        markdown(report) for report in (with_estimates().model_copy(update={"estimates": []}), with_estimates())
    )
    (added,) = [part for part in more.split("### ") if part.startswith(estimated.TITLE)]
    assert more.replace(f"### {added}", "") == plain


def test_they_are_not_shown_once_the_board_itself_was_measured() -> None:
    report = with_estimates(where="device")
    for text in (markdown(report), html(report), on_a_terminal(report)):
        assert "9.50 to 16.2" not in text.partition("report-data")[0]
        assert f"### {estimated.TITLE}" not in text


def test_the_report_says_in_each_figure_that_it_is_estimated() -> None:
    assert [one["where"] for one in json.loads(with_estimates().as_json())["estimates"]] == ["estimated"]


@pytest.fixture
def file(tmp_path: Path) -> ExportedFile:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["output"], name="conv")],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 8, 16, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 8, 14, 14])],
        [numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), "w")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return ExportedFile(
        variant="baseline", precision="fp32", path=path, onnx=path, description="", parameters=1, macs=1, parity={}
    )


def test_each_engine_that_the_board_would_build_is_estimated(file: ExportedFile) -> None:
    found, missing = estimates_of([file], [], profiles.load("jetson-nano"))
    assert [(one.variant, one.precision) for one in found] == [("baseline", "fp32"), ("baseline", "fp16")]
    assert all(one.interval[0] < one.ms < one.interval[1] for one in found)
    assert missing == {}


def test_where_there_is_no_ground_the_reason_is_told(file: ExportedFile) -> None:
    found, missing = estimates_of([file], [], profiles.load("jetson-thor"))
    assert found == []
    assert "does not say its peak_gmacs" in missing[WHAT]


def test_nothing_is_estimated_for_this_machine_or_beside_a_measurement(file: ExportedFile) -> None:
    assert estimates_of([file], [], profiles.load("openvino-cpu")) == ([], {})
    measured = with_estimates(where="device").variants
    assert estimates_of([file], measured, profiles.load("jetson-nano")) == ([], {})
