"""Ctrl-C at a moment that no slow machine moves: the measuring process presses it for whoever started it."""

from __future__ import annotations

from pathlib import Path

# Python runs what is found on PYTHONPATH as sitecustomize when it starts.
SCRIPT = """
import itertools
import os
import signal
from edgepress.targets import duties, timing

duties.PRECISION_GOAL = 0.0  # never precise enough: only the signal ends the timing
visit, numbers = timing._visit, itertools.count(1)


def visit_and_interrupt(*words, **named):
    visit(*words, **named)
    if next(numbers) == {visits}:
        os.kill(os.getppid(), signal.SIGINT)  # what Ctrl-C would send to it alone


timing._visit = visit_and_interrupt
"""


def interrupting(folder: Path, *, visits: int) -> dict[str, str]:
    """The environment in which a measurement is interrupted once its engines were visited so many times in all."""
    (folder / "sitecustomize.py").write_text(SCRIPT.format(visits=visits))
    return {"PYTHONPATH": str(folder)}
