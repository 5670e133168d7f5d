"""An honest folder holds, whatever is changed is found, and a hostile one does no harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished_run import finished, honest_report

from edgepress.pipeline import cli, sums
from edgepress.pipeline.remeasuring import _environment, _open, _speedup
from edgepress.pipeline.verifying import verify
from edgepress.targets import machine
from edgepress.targets.digests import sha256
from edgepress.targets.figures import Figures, Measurement
from edgepress.targets.statistics import Latency

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    finished(folder)
    return folder


def failures(folder: Path) -> dict[str, str]:
    return {check.name: check.text for check in verify(folder, measure=False) if check.ok is False}


def change(folder: Path, edit: Change) -> None:
    """Edit report.json as somebody would who also writes a new list of sums."""
    values = json.loads((folder / "report.json").read_text())
    edit(values)
    (folder / "report.json").write_text(json.dumps(values))
    sums.write(folder)


def test_an_honest_folder_holds(out: Path) -> None:
    assert failures(out) == {}
    assert cli.main(["verify", str(out), "--no-measure"]) == 0


def test_a_model_that_was_exchanged_is_named(out: Path) -> None:
    (out / "models/int8.onnx").write_bytes(b"y" * 103)
    assert "models/int8.onnx" in failures(out)["hashes"]
    assert cli.main(["verify", str(out), "--no-measure"]) == 5


def test_a_model_that_is_gone_is_named_in_both_ways(out: Path) -> None:
    (out / "models/int8.onnx").unlink()
    assert {"hashes", "files of the variants"} <= failures(out).keys()


def test_a_file_that_was_added_is_named(out: Path) -> None:
    (out / "models/extra.onnx").write_bytes(b"z")
    assert failures(out)["hashes"] == "not listed: 'models/extra.onnx'"


def test_a_folder_without_sums_says_how_to_get_them(out: Path) -> None:
    (out / sums.NAME).unlink()
    assert "run `compress` again" in failures(out)["hashes"]


def scale(key: str, factor: float) -> Change:
    def edit(values: dict[str, Any]) -> None:
        values["variants"][3]["latency_ms"][key] *= factor

    return edit


@pytest.mark.parametrize("key", ["median", "p90", "p99", "mean", "minimum"])
def test_a_latency_that_was_made_prettier_does_not_follow_from_the_samples(out: Path, key: str) -> None:
    change(out, scale(key, 0.9))
    assert f"latency: {key} is" in failures(out)["figures of int8"]


def edited(*path: str | int, value: Any) -> Change:
    def edit(values: dict[str, Any]) -> None:
        place: Any = values
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edited("variants", 3, "latency_ms", "ci95", value=[0.10, 0.11]), "the interval of the median"),
        (edited("variants", 3, "speedup", "value", value=9.0), "speed-up: is 9"),
        (edited("variants", 3, "accuracy", "value", value=99.0), "no whole number of 449 images"),
        (edited("variants", 3, "accuracy", "ci95", value=[97.0, 98.0]), "the interval follows as"),
        (edited("variants", 3, "accuracy", "drop", value=0.0), "the drop is 0.0000"),
        (edited("variants", 3, "latency_ms", "samples", value=[]), "there are no samples"),
        (edited("variants", 3, "latency_ms", "samples", value=[[0.1], []]), "a round without any"),
        (edited("variants", 3, "latency_ms", "samples", value=[[-1.0]]), "no durations"),
        (edited("variants", 3, "latency_ms", "samples", value=[[1e300] * 9] * 9), "no durations"),
        (edited("variants", 3, "latency_ms", "samples", value=[[0.1]] * 20_001), "more than a run takes"),
        (edited("variants", 3, "latency_ms", "rounds_by_load", value=[1, 10**6]), "are not the"),
        (edited("variants", 3, "latency_ms", "rounds_by_load", value=[-1, 2]), "are not the"),
        (edited("variants", 3, "accuracy", "n", value=10**400), "is no share"),
        (edited("variants", 3, "accuracy", "n", value=0), "is no share"),
    ],
)  # fmt: skip
def test_a_figure_that_was_changed_is_found(out: Path, edit: Change, words: str) -> None:
    change(out, edit)
    assert words in failures(out)["figures of int8"]


def test_another_choice_than_the_rules_make_is_found(out: Path) -> None:
    change(out, edited("chosen", "name", value="pruned"))
    assert "pruned is said to be chosen, the rules choose int8" in failures(out)["choice and budget"]


def test_a_forced_choice_is_told_and_holds(out: Path) -> None:
    change(out, edited("chosen", value={"name": "pruned", "why": "forced", "forced": True}))
    (check,) = [check for check in verify(out, measure=False) if check.name == "choice and budget"]
    assert check.ok
    assert "forced with --ship" in check.text


def test_a_budget_that_is_said_to_be_met_and_is_not_is_found(out: Path) -> None:
    change(out, edited("budget", "accuracy_drop", "met", value=False))
    assert "accuracy_drop" in failures(out)["choice and budget"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "models/\0", "models/" + "x" * 3000])
def test_a_file_outside_the_folder_is_neither_read_nor_named_as_good(out: Path, name: str) -> None:
    change(out, edited("variants", 3, "file", value=name))
    assert "int8:" in failures(out)["files of the variants"]


def test_sums_that_lead_out_of_the_folder_are_refused(out: Path) -> None:
    digest = sha256(Path("/etc/hostname"))
    with (out / sums.NAME).open("a") as file:
        file.write(f"{digest}  ../../../../../../etc/hostname\n")
    assert "lead out of the folder" in failures(out)["hashes"]


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{", '"x"', '{"schema_version": "1.0"}', '{"schema_version": "9.9"}', "[" * 100_000, "9" * 10_000,
        '{"schema_version": "1.0", "variants": ' + "9" * 5000 + "}", "\x00\x01",
    ],
    ids=range(11),
)  # fmt: skip
def test_a_report_that_is_none_is_one_failed_check(out: Path, text: str) -> None:
    (out / "report.json").write_text(text)
    assert "schema" in failures(out)


@pytest.mark.parametrize(
    "edit",
    [
        edited("variants", value=[]),
        edited("variants", 3, "size_bytes", value=10**400),
        edited("variants", 0, "latency_ms", "median", value="fast"),
        edited("variants", 0, "latency_ms", "median", value=float("inf")),
        edited("variants", 1, "name", value="baseline"),
        edited("profile", value={"runtime": 7}),
        edited("profile", "environment", value={"LD_PRELOAD": "/tmp/evil.so"}),
        edited("budget", value={"no_such_limit": {"limit": 1.0, "value": 1.0, "met": True, "why": ""}}),
        edited("chosen", value={"name": "nobody", "why": "", "forced": True}),
        edited("run", "recipe", value={"data": "text"}),
    ],
)
def test_no_value_makes_the_check_crash(out: Path, edit: Change) -> None:
    change(out, edit)
    assert cli.main(["verify", str(out), "--no-measure"]) in (0, 5)


def test_the_models_of_a_folder_that_was_changed_are_not_run(out: Path) -> None:
    (out / "models/int8.onnx").write_bytes(b"y" * 103)
    (last,) = [check for check in verify(out) if check.name == "measurement"]
    assert last.ok is None
    assert "not run" in last.text


def test_models_that_cannot_be_loaded_are_no_success(out: Path) -> None:
    change(out, edited("run", "recipe", value={"data": {"source": "python:memory"}}))
    (check,) = [check for check in verify(out, seconds=0.1) if check.name == "measurement"]
    assert check.ok is not True


def test_of_the_environment_only_harmless_variables_pass() -> None:
    report = honest_report()
    report.profile["environment"] = {"LD_PRELOAD": "/tmp/evil.so", "ONEDNN_MAX_CPU_ISA": "AVX2", "PATH": "/tmp"}
    assert _environment(report) == {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    report.profile["environment"] = {"ONEDNN_MAX_CPU_ISA": "AVX2; rm"}
    assert _environment(report) == {}


@pytest.mark.parametrize(
    ("slower", "here", "there", "ok"),
    [(1.0, None, None, True), (1.3, None, None, False), (1.3, "too noisy", None, None), (1.3, None, "too noisy", None)],
)
def test_another_speed_up_fails_unless_one_of_the_two_measurements_refuses_to_claim_any(
    slower: float, here: str | None, there: str | None, ok: bool | None
) -> None:
    report = honest_report()
    report.run.machine, report.verdict.unreliable = machine.describe(), there
    names = ("baseline", report.chosen.name)
    timed = {variant.name: variant for variant in report.variants if variant.name in names}
    figures = {}
    for name, factor in zip(names, (1.0, slower), strict=True):
        assert timed[name].latency_ms is not None
        samples = tuple(tuple(factor * sample for sample in visit) for visit in timed[name].latency_ms.samples)
        figures[name] = Figures(latency=Latency(samples_ms=samples))
    found = Measurement(figures=figures, machine={}, caveats=[], versions={}, unreliable=here)
    check = _speedup(report, timed[names[0]], timed[names[1]], found)
    assert check.ok is ok
    assert ("too noisy" in check.text) == (ok is None)


def test_a_python_file_that_only_the_report_names_is_not_run(tmp_path: Path) -> None:
    script = tmp_path / "evil.py"
    script.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\ndef data(): return {{}}\n")
    report = honest_report()
    report.run.recipe["data"] = {"source": f"{script}:data"}
    opened, why = _open(report, data=None, cache=tmp_path)
    assert opened is None
    assert "not run" in why
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_not_there_is_a_wrong_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_json_tells_every_check(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(out), "--no-measure", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert {"hashes", "schema", "choice and budget"} <= {check["name"] for check in found["checks"]}


def test_rendering_again_keeps_an_honest_folder_honest(out: Path) -> None:
    assert cli.main(["report", str(out)]) == 0
    assert failures(out) == {}
