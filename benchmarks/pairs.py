"""Times things in turn, A B A B, and tells the ratio of each pair: drift of the machine cancels out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from edgepress.targets.machine import describe


def in_turn(things: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, by name; one untimed round first."""
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for place in range(rounds + 1):
        for name, call in things.items():
            began = time.perf_counter()
            call()
            if place:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def spread(values: Sequence[float]) -> str:
    """Median (smallest to largest)."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def machine() -> str:
    """One line on where this ran."""
    facts = cpu_facts()
    return f"{facts['cpu']}, {facts['usable_cores']} cores usable, load {facts['load_1m']} at the start"


def cpu_facts() -> dict[str, object]:
    """What `edgepress` records of a machine."""
    return describe()
