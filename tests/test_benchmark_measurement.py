"""The benchmark of the measurement runs, in its shortest form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "measurement.py"

pytestmark = [pytest.mark.slow, pytest.mark.device]


@pytest.mark.parametrize(("what", "column"), [
    ("aa", "no difference claimed"), ("delta", "found slower"), ("reference", "ratio, median (range)"),
    ("memory", "from outside, MiB"),
])  # fmt: skip
def test_each_part_prints_a_table_and_the_same_as_json(what: str, column: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), what, "--quick", "--model", "small", "--runtime", "onnxruntime"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.strip().splitlines()
    (row,) = json.loads(last)["rows"]
    assert any(line.startswith("| model | runtime |") and f"| {column} |" in line for line in table)
    assert f"| {row[column]} |" in done.stdout
    assert row["runs"] == 2


def test_memory_seen_from_outside_is_what_the_process_says() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "memory", "--quick", "--model", "small", "--runtime", "onnxruntime"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (row,) = json.loads(done.stdout.strip().splitlines()[-1])["rows"]
    for inside, outside in row["raw"]:
        assert inside == pytest.approx(outside, rel=0.05)
