"""What was measured, as plain data that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .statistics import Latency, ratio


def latency_facts(latency: Latency | None) -> dict[str, Any] | None:
    """The report's form of a latency."""
    if latency is None:
        return None
    return {
        "median": latency.median_ms,
        "p90": latency.percentile_ms(0.90),
        "p99": latency.percentile_ms(0.99),
        "mean": latency.mean_ms,
        "minimum": latency.minimum_ms,
        "ci95": latency.median_ci95_ms,
        "samples": [[round(sample, 5) for sample in visit] for visit in latency.samples_ms],
        "threads": latency.threads,
    }


def ratios(latencies: Mapping[str, Latency | None]) -> dict[str, dict[str, list[float]]]:
    """How many times the second is faster than the first, with the interval: [value, low, high]."""
    timed = {name: latency for name, latency in latencies.items() if latency is not None}
    return {
        slow: {
            fast: [found.value, found.low, found.high]
            for fast in timed
            if fast != slow
            for found in (ratio(timed[slow], timed[fast]),)
        }
        for slow in timed
    }
