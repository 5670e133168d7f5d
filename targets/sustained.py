"""What happens to latencies when work goes on: over time, beside the temperature, and whether the order changes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .statistics import Latency, ratio
from .surroundings import Look

POINTS = 200  # of each curve: as many as a drawing shows
END_SHARE = 0.1  # of the rounds: what counts as the start, and as the end
FEWEST_ROUNDS = 6  # at either end, or its interval says nothing


def summary(latencies: Mapping[str, Latency], seen: Sequence[Look]) -> dict[str, Any] | None:
    """As plain data; None where nothing was timed. Samples of a curve's point are those of neighbouring rounds.

    flips: pairs (a, b) of which a was surely faster at the start, and b surely faster at the end.
    """
    if not latencies:
        return None
    starts = {name: _part(latency, at_end=False) for name, latency in latencies.items()}
    ends = {name: _part(latency, at_end=True) for name, latency in latencies.items()}
    flips = [
        [one, other]
        for one in latencies
        for other in latencies
        if one != other and _is_faster(starts[one], starts[other]) and _is_faster(ends[other], ends[one])
    ]
    return {
        "seconds": round(max(latency.visited_s[-1] for latency in latencies.values()), 3),
        "engines": {
            name: {
                **_curve(latency),
                "start_ms": starts[name].median_ms,
                "end_ms": ends[name].median_ms,
                "slowdown": _ratio_of_ends(starts[name], ends[name]),
            }
            for name, latency in latencies.items()
        },
        "ranking_at_start": sorted(starts, key=lambda name: starts[name].median_ms),
        "ranking_at_end": sorted(ends, key=lambda name: ends[name].median_ms),
        "flips": flips,
        "temperature_c": _series(seen, "temperature_c"),
        "frequency_mhz": _series(seen, "frequency_mhz"),
    }


def sentence(facts: Mapping[str, Any]) -> str:
    """What came of it, in words."""
    order = ", ".join(facts["ranking_at_start"])
    slowest = max(facts["engines"].items(), key=lambda entry: entry[1]["slowdown"][0])
    name, (slowdown, low, high) = slowest[0], slowest[1]["slowdown"]
    if facts["flips"]:
        flips = "; ".join(f"{one} was faster than {other} at the start and slower at the end"
                          for one, other in facts["flips"])  # fmt: skip
        words = f"The order changed: {flips}"
    else:
        words = f"The order at the start ({order}) still held at the end" if len(facts["engines"]) > 1 else "One model"
    change = f"{name} slowed down most, {slowdown:.2f} times ({low:.2f} to {high:.2f})"
    if low <= 1.0:
        change = "none became surely slower"
    return f"{words}; {change} in {facts['seconds']:.0f} s."


def _part(latency: Latency, *, at_end: bool) -> Latency:
    """The first or the last rounds alone."""
    rounds = len(latency.samples_ms)
    count = min(rounds, max(FEWEST_ROUNDS, round(END_SHARE * rounds)))
    chosen = slice(rounds - count, rounds) if at_end else slice(0, count)
    return replace(
        latency, samples_ms=latency.samples_ms[chosen], visited_s=latency.visited_s[chosen], rounds_by_load=()
    )


def _is_faster(one: Latency, other: Latency) -> bool:
    return ratio(other, one).low > 1.0


def _ratio_of_ends(start: Latency, end: Latency) -> list[float]:
    """How many times slower at the end: [value, low, high]."""
    found = ratio(end, start)
    return [found.value, found.low, found.high]


def _curve(latency: Latency) -> dict[str, list[float]]:
    at_s, median_ms, p90_ms = [], [], []
    for rounds in np.array_split(np.arange(len(latency.samples_ms)), min(POINTS, len(latency.samples_ms))):
        samples = np.concatenate([latency.samples_ms[index] for index in rounds])
        at_s.append(round(latency.visited_s[rounds[0]], 3))
        median_ms.append(round(float(np.median(samples)), 6))
        p90_ms.append(round(float(np.sort(samples)[int(0.9 * (len(samples) - 1))]), 6))
    return {"at_s": at_s, "median_ms": median_ms, "p90_ms": p90_ms}


def _series(seen: Sequence[Look], name: str) -> dict[str, list[float]] | None:
    known = [(look.at_s, value) for look in seen if (value := getattr(look, name)) is not None]
    if not known:
        return None
    step = -(-len(known) // POINTS)
    at_s, values = zip(*known[::step], strict=True)
    return {"at_s": [round(moment, 3) for moment in at_s], "values": list(values)}
