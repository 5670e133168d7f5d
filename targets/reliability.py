"""Can any claim rest on these timings? If not, that is the verdict."""

from collections.abc import Mapping
from dataclasses import replace

from .statistics import ROUNDS_TO_RESAMPLE, Latency, Ratio, ratio

# Half an interval, as a share of its value. A quiet machine reaches 0.01 in seconds and a busy one 0.03: where every
# comparison is ten times worse than asked for, what made it so bad is not in the samples to be averaged away.
TOO_WIDE = 0.10


def unreliable(latencies: Mapping[str, Latency]) -> str | None:
    """Why no claim can be made, in words; None where claims hold. The first latency is the baseline.

    Either one comparison with the baseline came out surely different in the second half of the rounds, though
    nothing but the time of day had changed; or every comparison is known too roughly.
    """
    if not latencies:
        return None
    (name, baseline), *others = latencies.items()
    if not others:
        width = baseline.relative_width
        return f"the median of {name} is known to ±{100 * width:.0f} % only" if width > TOO_WIDE else None
    for other, latency in others:
        change = _change(baseline, latency)
        if change is not None:
            first, second = change
            return (
                f"{other} was {first.value:.2f} times as fast as {name} in the first half of the rounds and "
                f"{second.value:.2f} times in the second"
            )
    widths = {other: _half_width(ratio(baseline, latency)) for other, latency in others}
    if min(widths.values()) > TOO_WIDE:
        best = min(widths, key=lambda other: widths[other])
        return f"no comparison with {name} is known better than to ±{100 * widths[best]:.0f} % ({best})"
    return None


def _half_width(found: Ratio) -> float:
    return (found.high - found.low) / 2 / found.value


def _change(baseline: Latency, other: Latency) -> tuple[Ratio, Ratio] | None:
    """The ratios of both halves where they surely differ, and by more than counts."""
    half = min(len(baseline.samples_ms), len(other.samples_ms)) // 2
    if half < ROUNDS_TO_RESAMPLE:
        return None
    first = ratio(_rounds(baseline, 0, half), _rounds(other, 0, half))
    second = ratio(_rounds(baseline, half, 2 * half), _rounds(other, half, 2 * half))
    apart = first.high < second.low or second.high < first.low
    return (first, second) if apart and abs(first.value / second.value - 1) > TOO_WIDE else None


def _rounds(latency: Latency, start: int, end: int) -> Latency:
    return replace(latency, samples_ms=latency.samples_ms[start:end], rounds_by_load=())
