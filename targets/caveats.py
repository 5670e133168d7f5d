"""What weakens a measurement: each a sentence with advice."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .statistics import Latency

FEW_SAMPLES = 200
SAMPLES_FOR_P99 = 1000
DRIFT = 0.03  # second half against first
TAIL = 1.3  # 90th percentile against the median
SPLIT_APART = 0.85  # share of all variance that lies between two groups; 0.64 for a normal, 0.75 for a flat one
GROUPS_DIFFER = 0.1
SMALLEST_GROUP = 0.1


def caveats(latencies: Mapping[str, Latency], machine: Mapping[str, Any]) -> list[str]:
    """Everything a careful reader should know about these timings; empty where there is nothing to add."""
    found = [sentence for name, latency in latencies.items() for sentence in _of_one(name, latency)]
    return [*found, *_of_machine(latencies, machine)]


def _of_one(name: str, latency: Latency) -> list[str]:
    found = []
    if latency.count < FEW_SAMPLES:
        found.append(f"{name}: {latency.count} samples are few; measure for longer to trust the percentiles.")
    elif latency.count < SAMPLES_FOR_P99:
        found.append(f"{name}: the 99th percentile rests on {latency.count} samples; take it as a rough figure.")
    if latency.relative_width > latency.precision_goal:
        found.append(
            f"{name}: the median is known to ±{100 * latency.relative_width:.1f} %, not to the "
            f"±{100 * latency.precision_goal:.1f} % asked for; measure for longer or on a quieter machine."
        )
    if not latency.settled:
        found.append(f"{name}: still changing when its warm-up ended; measure for longer or let the machine rest.")
    if latency.calls_per_sample > 1:
        found.append(
            f"{name}: too fast for the clock, each sample is the mean of {latency.calls_per_sample} calls; "
            "percentiles are those of the means."
        )
    found.extend(_of_shape(name, latency))
    return found


def _of_shape(name: str, latency: Latency) -> list[str]:
    found = []
    change = drift(latency)
    if abs(change) > DRIFT:
        direction, cause = ("slower", "throttling or a busy machine") if change > 0 else ("faster", "a cold start")
        found.append(
            f"{name}: the second half was {100 * abs(change):.0f} % {direction} than the first, "
            f"a sign of {cause}; let the machine cool down or settle, and measure again."
        )
    modes = two_speeds(latency)
    if modes:
        found.append(
            f"{name}: two speeds, about {modes[0]:.3g} ms and {modes[1]:.3g} ms, so the median may flip; "
            "close other programs, fix the clock frequency, or compare the minimum."
        )
    elif latency.percentile_ms(0.9) > TAIL * latency.median_ms:
        times = latency.percentile_ms(0.9) / latency.median_ms
        found.append(
            f"{name}: one inference in ten took more than {times:.1f} times the median; "
            "the machine is noisy, close other programs and measure again."
        )
    return found


def drift(latency: Latency) -> float:
    """How much slower the second half of the rounds was than the first, as a share; 0 with too few rounds."""
    half = len(latency.samples_ms) // 2
    if half < 2:
        return 0.0
    first = float(np.median(np.concatenate([np.asarray(visit) for visit in latency.samples_ms[:half]])))
    second = float(np.median(np.concatenate([np.asarray(visit) for visit in latency.samples_ms[-half:]])))
    return second / first - 1.0 if first else 0.0


def two_speeds(latency: Latency) -> tuple[float, float] | None:
    """Both medians where the samples fall into two groups that lie apart, else None.

    Otsu's criterion (1979): the cut that leaves the least variance inside the groups. The slowest percent is
    left out: a handful of interrupts makes no second speed.
    """
    samples = np.sort(np.concatenate([np.asarray(visit, dtype=np.float64) for visit in latency.samples_ms]))
    samples = samples[: max(1, round(0.99 * len(samples)))]
    if len(samples) < FEW_SAMPLES or samples.var() == 0:
        return None
    cut, between = _best_cut(samples)
    low, high = float(np.median(samples[:cut])), float(np.median(samples[cut:]))
    smaller = min(cut, len(samples) - cut) / len(samples)
    if between >= SPLIT_APART and smaller >= SMALLEST_GROUP and high > low * (1 + GROUPS_DIFFER):
        return low, high
    return None


def _best_cut(samples: NDArray[np.float64]) -> tuple[int, float]:
    """Where to cut sorted samples, and the share of variance that then lies between the groups."""
    count = len(samples)
    sizes = np.arange(1, count)
    sums = np.cumsum(samples)[:-1]
    below = sums / sizes
    above = (samples.sum() - sums) / (count - sizes)
    between = sizes * (count - sizes) / count**2 * (above - below) ** 2 / samples.var()
    best = int(between.argmax())
    return best + 1, float(between[best])


def _of_machine(latencies: Mapping[str, Latency], machine: Mapping[str, Any]) -> list[str]:
    found = []
    threads = max((latency.threads for latency in latencies.values()), default=1)
    usable = machine.get("usable_cores") or 1
    if threads > usable:
        found.append(f"{threads} threads ran on {usable} usable cores; ask for at most {usable} threads.")
    limit = (machine.get("container") or {}).get("cores")
    if limit is not None and limit < threads:
        found.append(f"The container may use {limit:g} cores and {threads} threads ran; raise its limit.")
    load = machine.get("load_1m")
    if load is not None and load > usable - threads + 0.5:
        found.append(
            f"The machine was busy before it started (load {load:g} on {usable} usable cores); close other programs."
        )
    governor = machine.get("governor")
    if governor not in {None, "performance"}:
        found.append(
            f"The CPU governor is {governor!r}, so the clock follows the load; "
            "set it to performance (cpupower frequency-set -g performance) for steady figures."
        )
    return found
