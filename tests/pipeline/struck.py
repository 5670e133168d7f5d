"""Start a run in another process, to strike it down at a certain moment."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def start(folder: Path, words: Sequence[str]) -> subprocess.Popen[str]:
    """`compress` with these words, in this folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgepress", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(pattern: str, folder: Path, process: subprocess.Popen[str]) -> Path:
    """The first file like that, as soon as it is there."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        found = list(folder.glob(pattern))
        if found:
            return found[0]
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.01)
    raise AssertionError(f"nothing like {pattern} appeared")
