"""Runs are compared under the same conditions, or marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_sample import sample_report

from edgepress.pipeline import cli
from edgepress.pipeline.comparing import conditions, differences
from edgepress.pipeline.report.schema import Report


def saved(folder: Path, report: Report | None = None) -> str:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text((report or sample_report()).model_dump_json())
    return str(folder)


def with_threads(count: int) -> Report:
    report = sample_report()
    for variant in report.variants:
        assert variant.latency_ms is not None
        variant.latency_ms.threads = count
    return report


def on_another_cpu() -> Report:
    report = sample_report()
    report.run.machine["cpu"] = "another"
    return report


def with_another_runtime() -> Report:
    report = sample_report()
    report.run.versions["openvino"] = "2099.1"
    return report


def on_other_images() -> Report:
    report = sample_report()
    assert report.data is not None
    report.data.test = 10_000
    return report


def test_runs_under_the_same_conditions_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", saved(tmp_path / "one"), saved(tmp_path / "two")]) == 0
    shown = capsys.readouterr().out
    for word in ("one", "two", "baseline", "int8", "times faster"):
        assert word in shown
    assert "not comparable" not in shown


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (with_threads(2), "threads: 2 instead of 1"),
        (on_another_cpu(), "processor: another instead of"),
        (with_another_runtime(), "version of the runtime: 2099.1 instead of 2026.4.1"),
        (on_other_images(), "number of test images: 10000 instead of 449"),
        (sample_report(where="stand-in"), "where it was measured: stand-in instead of device"),
    ],
    ids=["threads", "processor", "runtime", "images", "place"],
)
def test_other_conditions_are_refused_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: Report, words: str
) -> None:
    assert cli.main(["compare", saved(tmp_path / "one"), saved(tmp_path / "two", other)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "--anyway" in message


def test_what_is_compared_anyway_is_marked_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [saved(tmp_path / "one"), saved(tmp_path / "two", with_threads(2))]
    assert cli.main(["compare", *folders, "--anyway"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("two *") == 2  # both of its rows
    assert "one *" not in shown
    assert "threads: 2 instead of 1" in shown


def test_the_page_marks_them_too_and_escapes_names(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    folders = [saved(tmp_path / "one"), saved(tmp_path / "<b>", with_threads(2))]
    assert cli.main(["compare", *folders, "--anyway", "--html", str(page)]) == 0
    text = page.read_text()
    assert "&lt;b&gt; *" in text
    assert "<b>" not in text
    assert "threads: 2 instead of 1" in text


def test_json_keeps_the_figures_and_leaves_the_samples_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", saved(tmp_path / "one"), saved(tmp_path / "two"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["comparable"] is True
    assert [run["run"] for run in found["runs"]] == ["one", "two"]
    assert "samples" not in found["runs"][0]["variants"][0]["latency_ms"]


def test_one_folder_is_no_comparison(tmp_path: Path) -> None:
    folder = saved(tmp_path / "one")
    assert cli.main(["compare", folder]) == 2
    assert cli.main(["compare", folder, folder]) == 2


def test_two_folders_of_one_name_are_told_apart_by_their_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [saved(tmp_path / side / "out") for side in ("a", "b")]
    assert cli.main(["compare", *folders, "--json"]) == 0
    assert [run["run"] for run in json.loads(capsys.readouterr().out)["runs"]] == folders


def test_equal_runs_differ_in_nothing() -> None:
    assert differences({"a": sample_report(), "b": sample_report()}) == {"a": [], "b": []}
    assert None not in (conditions(sample_report())["processor"], conditions(sample_report())["runtime"])


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [saved(tmp_path / "one"), saved(tmp_path / "two")]
    assert cli.main(["compare", *folders, "--html", str(tmp_path / "no" / "page.html")]) == 5
    assert "cannot write" in capsys.readouterr().err
