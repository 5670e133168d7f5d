"""A main job whose measurement is stopped, hangs, or is drowned in noise."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from interrupting import interrupting
from noise import code_within_budget

import edgepress
from edgepress.pipeline.report import render
from edgepress.stages import profiling
from edgepress.targets import measure as measuring

pytestmark = pytest.mark.slow

SETTINGS = {
    "stages": ["prune", "export", "profile"], "prune.ratio": 0.3, "prune.epochs": 1, "profile.all_cores": False, "profile.memory": False,
    "profile.layers": False, "profile.seconds": 0.5,
}  # fmt: skip
BUDGET = {"accuracy_drop": 100, "latency_ms": 1000}
SILENCE = 10.0  # seconds: longer than a busy machine takes to start Python and a runtime
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
    monkeypatch.setattr(profiling, "measure", functools.partial(measuring.measure, timeout_seconds=SILENCE))
    found = edgepress.compress(**options(tmp_path / "out")).report
    variants = {variant.name: variant for variant in found.variants}
    assert variants["pruned"].latency_ms is None
    assert any(f"no answer for {SILENCE:g} s" in warning for warning in variants["pruned"].warnings)
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
    assert quiet.exit_code == code_within_budget(quiet.report)
    assert noisy.report.variants[0].latency_ms != quiet.report.variants[0].latency_ms
    reused = {stage.name: stage.reused for stage in quiet.report.stages}
    assert reused == {"prune": True, "export": True, "profile": False}


def test_ctrl_c_in_the_measurement_leaves_a_report_of_what_was_measured(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "edgepress", "--model", "builtin:digits-student", "--data", "builtin:digits"),
        *("--out", "out", "--budget", "accuracy_drop=100"),
    ]  # fmt: skip
    long = words({**SETTINGS, "profile.seconds": 300, "profile.sustained_seconds": 300})
    stopped = compress(tmp_path, [*command, *long], interrupting(tmp_path, visits=20))
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    found = json.loads((tmp_path / "out/report.json").read_text())
    assert found["incomplete"] == "stopped while the latency was measured"
    assert found["verdict"]["sentence"].startswith("Incomplete: ")
    assert found["chosen"]["name"] == "baseline"
    assert all(variant["latency_ms"]["samples"] for variant in found["variants"])
    again = compress(tmp_path, [*command, *words(SETTINGS)], {})
    report = render.read(tmp_path / "out")
    assert again.returncode == code_within_budget(report), again.stderr
    assert report.incomplete is None


def compress(folder: Path, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=300
    )
