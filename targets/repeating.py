"""The same comparison again and again: does this machine claim differences that are not there, and which can it see?"""

import statistics as plain
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import StageError
from .jobs import Engine
from .measure import measure
from .sessions import Array
from .statistics import Interval, Latency, Ratio, ratio, wilson


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One of them. unreliable: it refused to claim anything."""

    ratio: Ratio
    median_ms: float
    seconds: float
    unreliable: bool

    @property
    def claims(self) -> bool:
        """That one is faster than the other, with its whole interval."""
        return not self.unreliable and not self.ratio.low <= 1.0 <= self.ratio.high


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """All of them."""

    comparisons: tuple[Comparison, ...]

    @property
    def claimed(self) -> int:
        return sum(one.claims for one in self.comparisons)

    @property
    def claimed_ci95(self) -> Interval:
        """Wilson, in per cent."""
        return wilson(self.claimed, len(self.comparisons))

    @property
    def resolution(self) -> float:
        """The smallest difference, as a share, that 95 of 100 such comparisons would find.

        A difference is found when it is wider than half the interval; it also has to outdo the scatter of the
        ratios themselves, which the same engine under two names shows.
        """
        needed = [_half(one.ratio) + abs(one.ratio.value - 1) for one in self.comparisons]
        return float(np.quantile(needed, 0.95))

    def facts(self) -> dict[str, Any]:
        low, high = self.claimed_ci95
        return {
            "runs": len(self.comparisons),
            "claimed": self.claimed,
            "claimed_percent_ci95": [low, high],
            "unreliable": sum(one.unreliable for one in self.comparisons),
            "resolution_percent": 100 * self.resolution,
            "median_ms": plain.median(one.median_ms for one in self.comparisons),
            "ratios": [[one.ratio.value, one.ratio.low, one.ratio.high] for one in self.comparisons],
            "seconds_each": plain.median(one.seconds for one in self.comparisons),
        }


def compare_again(
    first: Engine,
    second: Engine,
    *,
    image: Array,
    runs: int,
    seconds: float,
    environment: dict[str, str] | None = None,
    told: Callable[[int, Comparison], None] = lambda number, found: None,
) -> Repeated:
    """Each time in a process of its own, as every measurement is. StageError: an engine failed.

    The ratio is how many times the second is faster than the first.
    """
    found = []
    for number in range(runs):
        pair = replace(first, name="first"), replace(second, name="second")
        measured = measure(
            pair,
            inputs={"image": image},
            seconds=seconds,
            environment=environment,
            all_cores=False,
            memory=False,
            energy=False,
            seed=number,
        )
        if measured.incomplete:
            raise KeyboardInterrupt
        one, other = (_latency(measured.figures[name].latency, measured.figures[name].failed) for name in
                      ("first", "second"))  # fmt: skip
        found.append(
            Comparison(
                ratio=ratio(one, other),
                median_ms=one.median_ms,
                seconds=_busy_seconds((one, other)),
                unreliable=measured.unreliable is not None,
            )
        )
        told(number + 1, found[-1])
    return Repeated(comparisons=tuple(found))


def _latency(latency: Latency | None, failed: str | None) -> Latency:
    if latency is None:
        raise StageError(f"the engine could not be timed: {failed}")
    return latency


def _busy_seconds(latencies: Sequence[Latency]) -> float:
    """How long the timing took, warm-up not counted."""
    return max(latency.visited_s[-1] for latency in latencies)


def _half(found: Ratio) -> float:
    return (found.high - found.low) / 2
