"""`compress profile` and `compress selftest` on a network that was never trained, in processes of their own."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from command import run
from interrupting import interrupting

from edgepress.pipeline import selftest
from edgepress.targets import practice
from edgepress.targets.runtimes import target

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(target("onnxruntime").unavailable()), reason=str(target("onnxruntime").unavailable())),
]

HERE = ["--target", "onnxruntime-cpu", "--quiet"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return practice.write(tmp_path / "net.onnx", blocks=1, channels=8, side=8)


def profiled(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, _ = run(capsys, "profile", *HERE, "--json", "--seconds", "0.05", *words)
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_profile_has_throughput_start_and_the_reason_for_what_is_missing(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = profiled(capsys, str(model))
    entry = found["models"]["net"]
    assert entry["throughput"] == [
        {"batch": 1, "per_second": pytest.approx(1000 / entry["latency_ms"]["mean"]), "threads": 1}
    ]
    assert set(entry["cold_start_ms"]) == {"runtime_ms", "load_ms", "first_ms"}
    assert (entry["energy"] is None) == ("energy" in found["not_measured"])
    assert found["sustained"] is None
    assert found["incomplete"] is None
    # a quiet machine gives cause for none
    assert all(set(caveat) == {"kind", "sentence", "advice", "about", "text"} for caveat in found["caveats"])


def test_the_profile_of_a_device_that_takes_batches_times_them(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, board: mine, runtime: onnxruntime, precisions: [fp32, int8], qdq: ort-u8, opset: 17, "
        "device: local, batch: 4}"
    )
    found = profiled(capsys, str(model), "--target", str(tmp_path / "mine.yaml"))
    assert [one["batch"] for one in found["models"]["net"]["throughput"]] == [1, 4]


def test_a_sustained_profile_says_what_became_of_the_order(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "profile", *HERE, str(model), "--seconds", "0.05", "--sustained", "0.5s")
    assert code == 0
    assert "sustained: " in out
    assert "energy: not measured" in out or "mJ for each inference" in out


def test_a_sustained_time_that_is_none_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, "profile", *HERE, str(model), "--sustained", "soon")
    assert code == 2
    assert "10min" in said


def test_ctrl_c_prints_what_was_measured_and_marks_it(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in interrupting(tmp_path, visits=3).items():
        monkeypatch.setenv(name, value)
    code, out, _ = run(capsys, "profile", *HERE, str(model), "--seconds", "100")
    assert code == 128 + signal.SIGINT
    assert "incomplete: stopped while the latency was measured" in out
    assert re.search(r"\bnet .*\bfp32 .*\d\.\d{3}", out)


def test_a_self_test_tells_how_often_and_how_small(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "selftest", *HERE, "--runs", "2", "--seconds", "0.05")
    assert code == 0
    assert "a difference was claimed in" in out
    assert "of 2 comparisons" in out
    assert "smallest difference that this machine resolves" in out


def test_a_self_test_as_json_has_every_ratio(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "selftest", *HERE, str(model), "--runs", "2", "--seconds", "0.05", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["runs"] == len(found["ratios"]) == 2
    low, high = found["claimed_percent_ci95"]
    assert 0 <= low <= 100 * found["claimed"] / 2 <= high <= 100
    assert found["resolution_percent"] > 0
    assert found["model"] == str(model)


@pytest.mark.parametrize("words", [["--runs", "0"], ["--seconds", "0"], ["--seconds", "nan"]])
def test_a_self_test_of_nothing_is_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, _, said = run(capsys, "selftest", *HERE, *words)
    assert code == 2
    assert "at least one run" in said


def test_a_self_test_of_a_file_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, "selftest", *HERE, "nowhere.onnx")
    assert code == 2
    assert "no file nowhere.onnx" in said


def test_too_many_false_claims_come_with_advice() -> None:
    facts: dict[str, Any] = {
        "model": "net", "runtime": "onnxruntime", "threads": 1, "median_ms": 1.0, "seconds_each": 2.0, "runs": 20,
        "unreliable": 1, "resolution_percent": 1.2, "claimed": 9, "claimed_percent_ci95": [26.0, 66.0],
    }  # fmt: skip
    said = " ".join(selftest.lines(facts))
    assert "too often" in said
    assert "1 comparisons were too noisy" in said
    assert "too often" not in " ".join(selftest.lines(facts | {"claimed": 1, "claimed_percent_ci95": [0.9, 23.6]}))
