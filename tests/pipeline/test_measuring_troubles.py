"""A main job whose measurement is stopped, hangs, or is drowned in noise."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import edgepress
from edgepress.stages import profiling
from edgepress.targets import measure as measuring

pytestmark = pytest.mark.slow

SETTINGS = {
    "stages": ["prune", "export", "profile"], "prune.epochs": 1, "profile.all_cores": False, "profile.memory": False,
    "profile.layers": False, "profile.seconds": 0.5,
}  # fmt: skip
BUDGET = {"accuracy_drop": 100, "latency_ms": 1000}
# Python runs what is found on PYTHONPATH as sitecustomize when it starts: here in the measuring process alone.
HANGING = """
import sys
import time
from edgepress.targets import ov

load = ov.OpenVINO.load


def hang(self, path, *, precision, threads=1):
    while path.stem == "pruned" and precision == "fp32":
        time.sleep(1)
    return load(self, path, precision=precision, threads=threads)


ov.OpenVINO.load = hang
"""
NOISY = """
import random
import time
from edgepress.targets import ov

call, rng = ov.OvSession.__call__, random.Random(0)


def noisy(self, batch):
    time.sleep(rng.lognormvariate(-8, 2.5))
    return call(self, batch)


ov.OvSession.__call__ = noisy
"""


def options(out: Path) -> dict[str, Any]:
    return {
        "model": "builtin:digits-student", "data": "builtin:digits", "settings": SETTINGS, "budget": BUDGET,
        "out": out, "quiet": True,
    }  # fmt: skip


def words(settings: dict[str, Any]) -> list[str]:
    return [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]


def test_a_session_that_hangs_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(profiling, "measure", functools.partial(measuring.measure, timeout_seconds=5.0))
    found = edgepress.compress(**options(tmp_path / "out")).report
    variants = {variant.name: variant for variant in found.variants}
    assert variants["pruned"].latency_ms is None
    assert any("no answer for 5 s" in warning for warning in variants["pruned"].warnings)
    assert variants["baseline"].latency_ms is not None
    assert variants["baseline"].accuracy is not None
    assert found.chosen.name != "pruned"
    assert found.incomplete is None


def test_a_machine_too_noisy_for_any_claim_is_a_verdict_and_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOISY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    noisy = edgepress.compress(**options(tmp_path / "out"))
    assert noisy.report.verdict.unreliable is not None
    assert noisy.report.verdict.sentence.startswith("Unreliable: ")
    assert noisy.report.chosen.name == "baseline"
    assert noisy.report.budget["latency_ms"].met is None
    assert noisy.exit_code == 4
    monkeypatch.delenv("PYTHONPATH")
    quiet = edgepress.compress(**options(tmp_path / "out"))
    assert quiet.report.verdict.unreliable is None
    reused = {stage.name: stage.reused for stage in quiet.report.stages}
    assert reused == {"prune": True, "export": True, "profile": False}


def test_ctrl_c_in_the_measurement_leaves_a_report_of_what_was_measured(tmp_path: Path) -> None:
    long = words({**SETTINGS, "profile.seconds": 300, "profile.sustained_seconds": 300})
    command = [
        *(sys.executable, "-m", "edgepress", "--model", "builtin:digits-student", "--data", "builtin:digits"),
        *("--out", "out"), *long,
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("out/stages/profile-*.part")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(6)  # until it times: the sustained run alone would take five minutes
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    found = json.loads((tmp_path / "out/report.json").read_text())
    assert found["incomplete"].startswith("stopped while")
    assert found["verdict"]["sentence"].startswith("Incomplete: ")
    assert found["chosen"]["name"] == "baseline"
    assert all(variant["latency_ms"]["samples"] for variant in found["variants"])
    again = subprocess.run(
        [*command[:-len(long)], *words(SETTINGS)], cwd=tmp_path, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "out/report.json").read_text())["incomplete"] is None
