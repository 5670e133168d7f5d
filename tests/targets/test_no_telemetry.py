"""Runtimes report their use to their makers unless told not to, and leave files of that in the user's home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OURS = "from edgepress.targets.runtimes import target; assert target({runtime!r}).unavailable() is None"


def left_in_home(home: Path, code: str) -> list[str]:
    home.mkdir()
    spared = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY")  # they keep quiet there
    environment = {name: value for name, value in os.environ.items() if name not in spared}
    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(home)}, check=True, timeout=120)
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_leaves_nothing_in_the_users_home(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    assert left_in_home(tmp_path / "home", OURS.format(runtime=runtime)) == []
