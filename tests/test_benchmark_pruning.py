"""The benchmark of pruning to a latency: what its tables say of figures, and that one row of each kind can be made."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_runs import run, write_digits
from torch import nn

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FIGURES = {
    "target": 0.5, "reported": 0.49, "again": 0.495, "again_low": 0.48, "again_high": 0.51, "baseline_ms": 1.5,
    "trials": 2, "first_error": 0.03, "kept": 0.9, "blocks_gone": 1, "reached": 1.0, "floor": 0.0, "search_seconds": 30,
    "unreliable": 0.0,
}  # fmt: skip


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """It imports its neighbours by file name, as a script does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent / "examples"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return importlib.import_module("prune_to_latency")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "hit"),
        ({"again": 0.512}, "hit"),
        ({"again": 0.53}, "missed"),
        ({"again": 0.6, "floor": 1.0}, "out of reach"),
    ],
)
def test_a_target_is_hit_within_three_per_cent_and_what_is_out_of_reach_is_said(
    benchmark: Any, changes: dict[str, float], said: str
) -> None:
    found = benchmark.seeds.Results(file=None, settings={})
    found.run("resnet20, openvino, 50", 0, lambda: {**FIGURES, **changes})
    assert benchmark.hit_table(found).splitlines()[-1].endswith(f"| {said} |")


def test_methods_are_compared_pair_by_pair(benchmark: Any) -> None:
    found = benchmark.seeds.Results(file=None, settings={})
    for seed in (0, 1):
        for method in benchmark.METHODS:
            recovered = 78.0 if method == "uniform" else 80.0 + seed
            figures = {"share": 0.5, "pruned": 20.0, "recovered": recovered, "met": 1.0}
            found.run(f"resnet20, openvino, 50, {method}", seed, lambda figures=figures: figures)
    lines = benchmark.accuracy_table(found).splitlines()
    uniform = next(line for line in lines if "uniform" in line)
    assert "| +2.50 (" in uniform
    assert len(lines) == 2 + len(benchmark.METHODS)


def of_width(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Conv2d(width, 1, 3))


@pytest.mark.parametrize(("most", "width", "met"), [(0.5, 10, 1.0), (0.05, 4, 0.0)])
def test_a_rival_with_one_ratio_is_the_largest_network_that_is_fast_enough(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, most: float, width: int, met: float
) -> None:
    """Ratios that break it are passed over, and a network is timed once however many ratios lead to it."""
    timed = []

    def share_of(_place: Any, module: nn.Module) -> float:
        timed.append(module[0].out_channels)
        return timed[-1] / 20

    def prune_by(ratio: float, multiple: int) -> nn.Module:
        if ratio > 0.85:
            raise RuntimeError("nothing is left")
        if multiple == 8:
            return of_width(16 if ratio > 0.5 else 8)
        return of_width(round(20 * (1 - ratio) / 2) * 2)

    rivals = sys.modules["prune_rivals"]
    monkeypatch.setattr(rivals, "share_of", share_of)
    place = argparse.Namespace(
        context=argparse.Namespace(profile=argparse.Namespace(channel_multiple=8)),
        setup=argparse.Namespace(example=torch.zeros(1, 1, 8, 8)),
    )
    module, share, is_met = rivals.by_ratio(place, most, prune_by)
    assert (module[0].out_channels, share, is_met) == (width, width / 20, met)
    assert len(set(timed)) == len(timed)
    assert timed == sorted(timed, reverse=True)


@pytest.mark.slow
def test_a_quick_row_comes_out_whole(benchmark: Any, tmp_path: Path) -> None:
    net = benchmark.networks()["mnist"]
    options = argparse.Namespace(part="hit", quick=True, seconds=1.0)
    found = benchmark.once(net, "onnxruntime", 75, 0, options)
    assert found.keys() == FIGURES.keys()
    assert 0 < found["again"] < 1.1


def test_recoveries_are_compared_pair_by_pair(benchmark: Any) -> None:
    recovery = importlib.import_module("prune_recovery")
    found = benchmark.seeds.Results(file=None, settings={})
    for seed in (0, 1):
        figures = {"share": 0.45, "teacher": 88.0, "kd validation": 83.0, "kd": 82.0 + seed}
        figures |= {"at validation": 84.0, "at": 83.5 + seed}
        found.run("kd at", seed, lambda figures=figures: figures)
    said = recovery.shown(found, ["kd", "at"])
    assert said.startswith("in 45.0 ± 0.0 % of the float time; as given 88.00 ± 0.00 %")
    assert said.splitlines()[-1] == "| answers, at | 84.00 ± 0.00 | 84.00 ± 0.71 | +1.50 (+1.50 to +1.50) | 2 |"


@pytest.mark.slow
@pytest.mark.device
def test_one_pruned_network_recovers_with_each_loss(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    data = f"mnist:{write_digits(tmp_path)}"
    run(
        "prune_recovery",
        monkeypatch,
        "--quick",
        "--net",
        "mnist",
        "--data",
        data,
        "--only",
        "kd,at fading",
        "--json",
        file,
    )
    (row,) = json.loads(file.read_text())["runs"]
    assert row["name"] == "kd at fading"
    assert 0 < row["figures"]["share"] < 0.6
    assert {"kd", "kd validation", "at fading", "at fading validation", "teacher"} <= row["figures"].keys()
