"""What was measured, as plain data that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .energy import Energy
from .figures import Figures
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
        "rounds_by_load": list(latency.rounds_by_load),
        "samples": [[round(sample, 5) for sample in visit] for visit in latency.samples_ms],
        "threads": latency.threads,
    }


def throughput(latency: Latency | None, *, batch: int) -> dict[str, Any] | None:
    """Inferences per second of one caller that waits for each answer. latency: of a whole batch."""
    if latency is None:
        return None
    return {"batch": batch, "per_second": 1000 * batch / latency.mean_ms, "threads": latency.threads}


def throughputs(figures: Figures, *, batch: int) -> list[dict[str, Any]]:
    """At batch 1, and at the profile's where that is another."""
    found = [throughput(figures.latency, batch=1), throughput(figures.batched, batch=batch)]
    return [one for one in found if one is not None]


def energy_facts(energy: Energy | None) -> dict[str, Any] | None:
    """The report's form of an energy; None where it was not measured, never 0."""
    if energy is None or energy.per_inference_mj is None:
        return None
    return {
        "per_inference_mj": energy.per_inference_mj,
        "rounds_mj": list(energy.rounds_mj),
        "watts": energy.watts,
        "rest_watts": energy.rest_watts,
        "inferences": energy.inferences,
        "meter": energy.meter,
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
