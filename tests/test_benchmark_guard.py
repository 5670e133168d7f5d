"""The guard refuses INT8 where it is slower, explains it, and leaves it where it is faster."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "guard.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the benchmark finds in its quick form, by the network's name."""
    found = tmp_path_factory.mktemp("guard") / "rows.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--json", str(found)], capture_output=True, text=True, check=False
    )
    assert found.is_file(), done.stderr
    return {row["name"]: row for row in json.loads(found.read_text())}


def refused(row: dict[str, Any]) -> str:
    """The explanation of a row that must be a refusal."""
    if row["outcome"] == "too noisy":
        pytest.skip("this machine is too noisy to tell")
    assert row["outcome"] == "right"
    assert row["chosen"] == "baseline"
    assert row["speedup"][1] <= 1.0
    return str(row["explanation"])


def test_tensorrts_layout_is_refused_on_onnx_runtime_and_the_unfused_layers_are_counted(
    rows: dict[str, dict[str, Any]],
) -> None:
    explanation = refused(rows["ResNet block stack, TensorRT layout"])
    assert "8 of 8 layers with weights run in float" in explanation
    assert "quantise and dequantise nodes that it could not fuse" in explanation


@pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="oneDNN's limit is for x86 alone")
def test_a_depthwise_network_is_refused_without_vnni_and_both_causes_are_named(rows: dict[str, dict[str, Any]]) -> None:
    explanation = refused(rows["depthwise stack, 3x3"])
    assert "depthwise convolution" in explanation
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in explanation
