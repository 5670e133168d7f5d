"""What weakens a measurement: each a sentence with advice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
OTHERS_ON_PINNED = 0.03  # share of the measured CPUs' time
OTHERS_CPUS = 0.5  # elsewhere on the machine
STOLEN = 0.02
CLOCK_SHARE = 0.9  # of the highest clock, or of the clock at the start
SWAP_MB = 64  # a few idle pages lie there on every machine


@dataclass(frozen=True, kw_only=True)
class Caveat:
    """kind: one word or two for programs. about: the engine, or None for the machine. The rest is for people.

    size: how bad, to compare those of one kind by; below 0 the other way round.
    """

    kind: str
    sentence: str
    advice: str
    about: str | None = None
    size: float = 0.0

    def __str__(self) -> str:
        start = f"{self.about}: {self.sentence}" if self.about else self.sentence
        return f"{start}; {self.advice}." if self.advice else f"{start}."


def caveats(latencies: Mapping[str, Latency], machine: Mapping[str, Any]) -> list[Caveat]:
    """Everything a careful reader should know about these timings; empty where there is nothing to add."""
    found = [replace(caveat, about=name) for name, latency in latencies.items() for caveat in _of_one(latency)]
    threads = max((latency.threads for latency in latencies.values()), default=1)
    return [*found, *_of_cores(threads, machine), *_of_state(machine), *_of_run(machine.get("during") or {}, machine)]


def told(found: Sequence[Caveat]) -> list[str]:
    """For people: what several engines share is said once, by the one that has most of it."""
    alike: dict[tuple[object, ...], list[Caveat]] = {}
    for place, caveat in enumerate(found):
        key = (place,) if caveat.about is None else (caveat.kind, caveat.advice, caveat.size < 0)
        alike.setdefault(key, []).append(caveat)
    return [str(_shared(group)) for group in alike.values()]


def _shared(group: Sequence[Caveat]) -> Caveat:
    if len(group) == 1:
        return group[0]
    worst = max(group, key=lambda caveat: abs(caveat.size))
    names = [str(caveat.about) for caveat in group]
    return replace(worst, about=f"{', '.join(names[:-1])} and {names[-1]}, most of all {worst.about}")


def _of_one(latency: Latency) -> Iterator[Caveat]:
    if latency.count < FEW_SAMPLES:
        yield Caveat(
            kind="few samples",
            sentence=f"{latency.count} samples are few",
            advice="measure for longer to trust the percentiles",
            size=FEW_SAMPLES / max(1, latency.count),
        )
    elif latency.count < SAMPLES_FOR_P99:
        yield Caveat(
            kind="rough p99",
            sentence=f"the 99th percentile rests on {latency.count} samples",
            advice="take it as a rough figure, or measure for longer",
            size=SAMPLES_FOR_P99 / latency.count,
        )
    if latency.relative_width > latency.precision_goal:
        yield Caveat(
            kind="wide interval",
            sentence=f"the median is known to ±{100 * latency.relative_width:.1f} %, not to the "
            f"±{100 * latency.precision_goal:.1f} % asked for",
            advice="measure for longer or on a quieter machine",
            size=latency.relative_width,
        )
    if not latency.settled:
        yield Caveat(
            kind="unsettled",
            sentence="still changing when its warm-up ended",
            advice="measure for longer or let the machine rest",
        )
    if latency.calls_per_sample > 1:
        yield Caveat(
            kind="batched calls",
            sentence=f"too fast for the clock, each sample is the mean of {latency.calls_per_sample} calls",
            advice="read the percentiles as those of the means",
            size=latency.calls_per_sample,
        )
    yield from _of_shape(latency)


def _of_shape(latency: Latency) -> Iterator[Caveat]:
    change = drift(latency)
    if abs(change) > DRIFT:
        direction, cause = ("slower", "throttling or a busy machine") if change > 0 else ("faster", "a cold start")
        yield Caveat(
            kind="drift",
            sentence=f"the second half was {100 * abs(change):.0f} % {direction} than the first, a sign of {cause}",
            advice="let the machine cool down or settle, and measure again",
            size=change,
        )
    modes = two_speeds(latency)
    if modes:
        yield Caveat(
            kind="two speeds",
            sentence=f"two speeds, about {modes[0]:.3g} ms and {modes[1]:.3g} ms, so the median may flip",
            advice="close other programs, fix the clock frequency, or compare the minimum",
            size=modes[1] / modes[0],
        )
    elif latency.percentile_ms(0.9) > TAIL * latency.median_ms:
        times = latency.percentile_ms(0.9) / latency.median_ms
        yield Caveat(
            kind="long tail",
            sentence=f"one inference in ten took more than {times:.1f} times the median: the machine is noisy",
            advice="close other programs and measure again",
            size=times,
        )


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


def _of_cores(threads: int, machine: Mapping[str, Any]) -> Iterator[Caveat]:
    usable = machine.get("usable_cores") or 1
    if threads > usable:
        yield Caveat(
            kind="fewer cores than threads",
            sentence=f"{threads} threads ran on {usable} usable cores",
            advice=f"ask for at most {usable} threads",
        )
    limit = (machine.get("container") or {}).get("cores")
    if limit is not None and limit < threads:
        yield Caveat(
            kind="fewer cores than threads",
            sentence=f"The container may use {limit:g} cores and {threads} threads ran",
            advice="raise its limit",
        )
    load = machine.get("load_1m")
    if load is not None and load > usable - threads + 0.5:
        yield Caveat(
            kind="load before",
            sentence=f"The machine was busy before it started (load {load:g} on {usable} usable cores)",
            advice="close other programs",
        )


def _of_state(machine: Mapping[str, Any]) -> Iterator[Caveat]:
    governor = machine.get("governor")
    if governor not in {None, "performance"}:
        yield Caveat(
            kind="governor",
            sentence=f"The CPU governor is {governor!r}, so the clock follows the load",
            advice="set it to performance (cpupower frequency-set -g performance) for steady figures",
        )
    if (machine.get("jetson") or {}).get("clocks_held") is False:
        yield Caveat(
            kind="clocks not held",
            sentence="The board's clocks follow the load",
            advice="run sudo jetson_clocks for steady figures",
        )
    swap_mb = machine.get("swap_used_mb")
    if swap_mb is not None and swap_mb > SWAP_MB:
        yield Caveat(
            kind="swap",
            sentence=f"{swap_mb} MiB lay in the swap space when it started",
            advice="free memory first: a model that is swapped out is slow in a way of its own",
        )


def _of_run(during: Mapping[str, Any], machine: Mapping[str, Any]) -> Iterator[Caveat]:
    """From what surroundings.Watch saw while the timing ran."""
    taken = during.get("others_on_pinned")
    if taken is not None and taken > OTHERS_ON_PINNED:
        yield Caveat(
            kind="load during",
            sentence=f"Other programs took {100 * taken:.0f} % of the time of the CPUs that were measured",
            advice="close them and measure again",
        )
    elif (during.get("others_cpus") or 0.0) > OTHERS_CPUS:
        yield Caveat(
            kind="load during",
            sentence=f"Other programs kept {during['others_cpus']:.1f} CPUs busy meanwhile, and shared its caches",
            advice="close them and measure again",
        )
    if (during.get("stolen") or 0.0) > STOLEN:
        yield Caveat(
            kind="stolen time",
            sentence=f"The host gave {100 * during['stolen']:.0f} % of the time of this virtual machine to others",
            advice="measure on a machine of its own",
        )
    clock, limit = during.get("frequency_mhz"), machine.get("frequency_limit_mhz")
    if clock and limit and clock["median"] < CLOCK_SHARE * limit:
        yield Caveat(
            kind="clock below maximum",
            sentence=f"The clock stood at {clock['median']:.0f} MHz of {limit:.0f} MHz",
            advice="look for a power mode that holds it back, or for heat",
        )
    slowed = clock and clock["end"] < CLOCK_SHARE * clock["start"]
    if slowed or during.get("throttle_events") or during.get("container_stops"):
        heat = during.get("temperature_c")
        at = f" at {heat['highest']:.0f} °C" if heat else ""
        by = "its container's limit" if during.get("container_stops") and not slowed else f"heat or power{at}"
        yield Caveat(
            kind="throttling",
            sentence=f"The CPU was held back by {by} while it measured",
            advice="cool it, give it more power, or raise the limit, and measure again",
        )
    if during.get("swapped_pages"):
        yield Caveat(
            kind="swap",
            sentence=f"{during['swapped_pages']} pages were swapped while it measured",
            advice="free memory and measure again",
        )
