"""The estimator's benchmark: its networks are the published ones, and what it leaves out has no part in the answer."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
from data_folders import needed

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
# 10^9 multiply-accumulates and 10^6 parameters of matrices and kernels: torchvision's model pages.
PUBLISHED = {
    "alexnet": (0.714, 61.1), "densenet121": (2.834, 7.9), "mnasnet1_0": (0.314, 4.3), "mobilenet_v2": (0.301, 3.5),
    "yolo11n": (3.25, 2.6), "yolo11s": (10.75, 9.4), "yolo11m": (34.0, 20.1), "yolo11l": (43.45, 25.3),
    "yolo11x": (97.45, 56.9), "resnet18": (1.814, 11.7), "resnet50": (4.089, 25.5), "squeezenet1_0": (0.819, 1.24), "vgg16": (15.47, 138.3),
}  # fmt: skip


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("estimator")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_networks_are_the_published_ones(name: str, benchmark: Any) -> None:
    found = benchmark.kernels(benchmark.published_nets.build(name))
    macs, weights = sum(kernel.macs for kernel in found) / 1e9, sum(kernel.weights for kernel in found) / 1e6
    assert (macs, weights) == pytest.approx(PUBLISHED[name], rel=0.012)


def test_the_constants_are_found_again_from_latencies_that_follow_them(benchmark: Any) -> None:
    truth = benchmark.Efficiency(
        arithmetic={"dense": 0.7, "pointwise": 0.3, "grouped": 0.05, "matmul": 0.5},
        bandwidth=0.6, launch_us=15.0, base_ms=0.3,
    )  # fmt: skip
    names = ("resnet18", "resnet50", "vgg11", "mobilenet_v2", "squeezenet1_1", "mnasnet0_5")
    rows = [benchmark.Row(name, "jetson-nano", "fp16", 1.0, "made up") for name in names]
    calibration = benchmark.Calibration(rows)
    made = [
        benchmark.Row(row.network, row.device, row.precision, calibration.estimate(row, truth), "made up")
        for row in rows
    ]
    off = [abs(error) for _, error in calibration.left_out(made)]
    assert sorted(off)[len(off) // 2] < 0.1
    fitted = calibration.fit(made)
    assert max(abs(calibration.error(row, fitted)) for row in made) < 0.1


def test_an_interval_holds_nine_in_ten(benchmark: Any) -> None:
    errors = [n / 10 for n in range(20)]
    assert benchmark.width(errors) == pytest.approx(math.exp(errors[18]))
    assert benchmark.width([0.1, -0.5]) == pytest.approx(math.exp(0.5))


def test_what_is_shipped_is_what_the_benchmark_makes_of_the_published_table(benchmark: Any, tmp_path: Path) -> None:
    rows, everything = benchmark.read(needed("latency") / "published.csv")
    assert 25 < len(rows) < everything
    calibration = benchmark.Calibration(rows)
    for name, group in benchmark.groups(rows).items():
        made, shipped = calibration.fit(group), benchmark.estimating.constants()[name]
        assert made.bandwidth == pytest.approx(shipped.bandwidth, rel=0.02)
        assert made.arithmetic["dense"] == pytest.approx(shipped.arithmetic["dense"], rel=0.02)
        assert len(group) == shipped.rows
