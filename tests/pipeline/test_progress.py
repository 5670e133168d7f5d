"""A log of a long run stays readable: the time left is said as a person would, and lines come rarer as hours pass."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from rich.console import Console

from edgepress.pipeline import progress


def said(monkeypatch: pytest.MonkeyPatch, *, hours: float) -> tuple[str, list[float]]:
    """All lines of a stage that is told of its progress every second, and when they came."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream, times = io.StringIO(), []
    lines = progress.Lines(Console(file=stream, width=120), "prune")
    for second in range(1, round(3600 * hours)):
        clock[0] = float(second)
        before = stream.tell()
        lines.update(second / (3600 * hours), "epoch 1/2")
        if stream.tell() > before:
            times.append(clock[0])
    return stream.getvalue(), times


def test_lines_are_five_seconds_apart_at_first_and_a_minute_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    _, times = said(monkeypatch, hours=2)
    apart = [after - before for before, after in pairwise(times)]
    assert set(apart[:20]) == {5.0}
    assert apart == sorted(apart), "never more often again"
    assert set(apart[-20:]) == {60.0}


def test_the_time_left_is_in_hours_minutes_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = said(monkeypatch, hours=2)
    assert text.startswith("  prune: 0 %, 1 h 59 min left  epoch 1/2\n  prune: 0 %, 1 h 59 min left")
    assert text.splitlines()[-2:] == [
        "  prune: 98 %, 1 min 50 s left  epoch 1/2",
        "  prune: 99 %, 50 s left  epoch 1/2",
    ]
