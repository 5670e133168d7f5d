"""The benchmark of the way over ssh runs, in its shortest form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sshd import SERVER

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "remote.py"

pytestmark = [pytest.mark.slow, pytest.mark.device]


@pytest.mark.skipif(
    SERVER is None, reason="no sshd on this machine (tests/run installs openssh-server where it has root)"
)
def test_both_ways_are_timed_and_compared() -> None:
    done = subprocess.run([sys.executable, str(BENCHMARK), "--quick"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.strip().splitlines()
    found = json.loads(last)
    assert any(line.startswith("| runtime |") for line in table)
    assert len(found["rows"]) == 2
    assert {row["first"] for row in found["rows"]} == {"here_ms", "over_ssh_ms"}
    assert 0.2 < found["median"] < 5, "on a noisy machine, and yet of the same engine"
