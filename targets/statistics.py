"""What the samples of a measurement say: medians, percentiles, ratios, and how sure each of them is."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Stopped = Literal["precise", "time", "interrupted"]

RESAMPLES = 1000
RESAMPLING_SEED = 20_240_229  # fixed: the same samples always print the same interval
ROUNDS_TO_RESAMPLE = 6  # with fewer rounds, resampling them says nothing: single samples are resampled instead
RANK_BINS = 2048  # a resampled median is found to a 2048th of all ranks, which is exact up to 2048 samples
# Half the 95 % interval of the ratio between two loads of one file, as a share, at least. Where the weights come to lie
# in memory changes the speed a little for as long as the process lives: rounds do not see it, so they cannot average it
# out. `benchmarks/measurement.py aa` shows how often a difference is claimed with it.
LOADED_AGAIN = 0.01
Z95 = 1.959964  # the normal quantile of a two-sided 95 % interval


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Every sample of one timed call; all other figures are derived.

    samples_ms: milliseconds of one call, by round, in the order taken. visited_s: when each round came to
    this call, in seconds from the start; the samples of a visit follow each other without a pause.
    calls_per_sample: above 1 where one call is too short for the clock and a sample is the mean of several.
    settled: the warm-up ended because the times stood still, not because its time was used up. rounds_by_load: how many
    rounds each load of the engine had, where it was loaded several times; together they are all. stopped: the
    interval of the median became narrower than precision_goal, the time was used up, or somebody pressed Ctrl-C.
    """

    samples_ms: tuple[tuple[float, ...], ...]
    visited_s: tuple[float, ...] = ()
    calls_per_sample: int = 1
    warmup_calls: int = 0
    settled: bool = True
    rounds_by_load: tuple[int, ...] = ()
    stopped: Stopped = "time"
    precision_goal: float = 0.01
    threads: int = 1

    @cached_property
    def _sorted(self) -> NDArray[np.float64]:
        return np.sort(np.concatenate([np.asarray(visit, dtype=np.float64) for visit in self.samples_ms]))

    @property
    def count(self) -> int:
        return len(self._sorted)

    @property
    def median_ms(self) -> float:
        return self.percentile_ms(0.5)

    @property
    def mean_ms(self) -> float:
        return float(self._sorted.mean())

    @property
    def minimum_ms(self) -> float:
        return float(self._sorted[0])

    def percentile_ms(self, share: float) -> float:
        """Nearest rank, share from 0 to 1: interpolation would invent a latency nobody saw."""
        rank = math.ceil(share * self.count)
        return float(self._sorted[max(rank, 1) - 1])

    @cached_property
    def median_ci95_ms(self) -> Interval:
        """Bootstrap over rounds: samples of one round share a disturbance, rounds do not."""
        medians = _resampled_medians(self, _draws(self, seed=RESAMPLING_SEED))
        return _middle95(medians)

    def then(self, other: "Latency", *, at_s: float) -> "Latency":
        """These rounds and those of another load of the same engine, which began so many seconds after these."""
        joined = replace(
            self,
            samples_ms=self.samples_ms + other.samples_ms,
            visited_s=self.visited_s + tuple(at_s + when for when in other.visited_s),
            calls_per_sample=max(self.calls_per_sample, other.calls_per_sample),
            warmup_calls=self.warmup_calls + other.warmup_calls,
            settled=self.settled and other.settled,
            rounds_by_load=(*(self.rounds_by_load or (len(self.samples_ms),)), len(other.samples_ms)),
        )
        is_precise = bool(self.precision_goal) and joined.relative_width <= self.precision_goal
        return replace(joined, stopped="precise" if is_precise else "time")

    @property
    def relative_width(self) -> float:
        """Half the interval of the median, as a share of the median."""
        low, high = self.median_ci95_ms
        return (high - low) / 2 / self.median_ms if self.median_ms else 0.0


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster, with its 95 % interval."""

    value: float
    low: float
    high: float


def ratio(baseline: Latency, other: Latency) -> Ratio:
    """How many times `other` is faster than `baseline`, both timed in turn in the same rounds.

    The median of what each round says, with a bootstrap over rounds: whatever slowed down a whole round cancels
    out, also where the machine drifts or changes between two clocks, which would make the quotient of the two
    medians flip. With too few rounds, or not the same, it is that quotient. What loading the engines again would
    change is added as an error of its own: what the loads differ by beyond what their rounds do, and LOADED_AGAIN.
    """
    rounds, between = len(baseline.samples_ms), 0.0
    by_round = _round_medians(baseline) / _round_medians(other) if rounds == len(other.samples_ms) else None
    if by_round is not None and baseline.rounds_by_load == other.rounds_by_load:
        between = Z95 * _error_of_loads(by_round, baseline.rounds_by_load)
    if by_round is not None and rounds >= ROUNDS_TO_RESAMPLE:
        value = float(np.median(by_round))
        drawn = np.random.default_rng(RESAMPLING_SEED).integers(0, rounds, (RESAMPLES, rounds))
        resampled = np.median(by_round[drawn], axis=1)
    else:
        value = baseline.median_ms / other.median_ms
        slow = _resampled_medians(baseline, _draws(baseline, seed=RESAMPLING_SEED))
        resampled = slow / _resampled_medians(other, _draws(other, seed=RESAMPLING_SEED + 1))
    low, high = _middle95(resampled)
    again = math.hypot(value * LOADED_AGAIN, between)
    return Ratio(
        value=value,
        low=value - math.hypot(max(0.0, value - low), again),
        high=value + math.hypot(max(0.0, high - value), again),
    )


def _error_of_loads(by_round: NDArray[np.float64], counts: tuple[int, ...]) -> float:
    """The standard error of a median over all rounds that comes of the loads and not of the rounds: the variance of the
    loads' own medians, less that which each has from its rounds, where those are enough to tell."""
    if len(counts) < 2 or min(counts) < 1 or sum(counts) != len(by_round):
        return 0.0
    loads = np.split(by_round, np.cumsum(counts)[:-1])
    variance = float(np.var([np.median(load) for load in loads], ddof=1))
    if min(counts) >= ROUNDS_TO_RESAMPLE:
        rng = np.random.default_rng(RESAMPLING_SEED)
        noise = [np.median(load[rng.integers(0, len(load), (RESAMPLES, len(load)))], axis=1).var() for load in loads]
        variance = max(0.0, variance - float(np.mean(noise)))
    return math.sqrt(variance / len(loads))


def wilson(successes: int, count: int) -> Interval:
    """95 % interval of a share, in per cent (Wilson, 1927): it holds near 0 and 100 % too."""
    if not 0 <= successes <= count or count == 0:
        raise ValueError(f"{successes} successes out of {count} is no share")
    share = successes / count
    scale = 1 + Z95**2 / count
    centre = (share + Z95**2 / (2 * count)) / scale
    half = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2)) / scale
    low = 0.0 if successes == 0 else centre - half  # exact at the ends, where rounding would leave 1e-15
    high = 1.0 if successes == count else centre + half
    return 100 * low, 100 * high


def paired_drop(baseline_right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Points of accuracy lost, and their 95 % interval: (drop, low, high). Below zero: something was gained.

    Both arrays tell, image by image, who answered rightly. Only images on which the two differ say anything,
    which makes this interval far tighter than the difference of two separate ones. Bonett and Price (2012):
    one is added to both kinds of disagreement, because the plain interval shrinks to nothing where two models
    never disagree.
    """
    if baseline_right.shape != other_right.shape or baseline_right.size == 0:
        raise ValueError(f"not the same images: {baseline_right.shape} and {other_right.shape}")
    count = baseline_right.size
    lost, gained = disagreements(baseline_right, other_right)
    lost_share = (lost + 1) / (count + 2)
    gained_share = (gained + 1) / (count + 2)
    centre = lost_share - gained_share
    half = Z95 * math.sqrt((lost_share + gained_share - centre**2) / (count + 2))
    return 100 * (lost - gained) / count, 100 * max(-1.0, centre - half), 100 * min(1.0, centre + half)


def disagreements(baseline_right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> tuple[int, int]:
    """Images that only the baseline has right, and images that only the other has right."""
    return (
        int(np.count_nonzero(baseline_right & ~other_right)),
        int(np.count_nonzero(~baseline_right & other_right)),
    )


def mcnemar(lost: int, gained: int) -> float:
    """How often chance alone would divide the disagreements as unequally: McNemar's test, exact and two-sided.

    Each disagreement falls to either side with equal chance where the two networks are equally good (McNemar, 1947,
    Psychometrika 12). 1 where they never disagree.
    """
    count = lost + gained
    tail = sum(math.comb(count, few) for few in range(min(lost, gained) + 1))
    return min(1.0, float(2 * tail / 2**count))


def _round_medians(latency: Latency) -> NDArray[np.float64]:
    return np.array([float(np.median(visit)) for visit in latency.samples_ms])


def _units(latency: Latency) -> tuple[tuple[float, ...], ...]:
    """What is resampled: rounds, or single samples where there are too few rounds."""
    if len(latency.samples_ms) >= ROUNDS_TO_RESAMPLE:
        return latency.samples_ms
    return tuple((sample,) for visit in latency.samples_ms for sample in visit)


def _draws(latency: Latency, *, seed: int) -> NDArray[np.float64]:
    """How often each unit is drawn in each resample: (resamples, units)."""
    units = len(_units(latency))
    rng = np.random.default_rng(seed)
    return rng.multinomial(units, [1 / units] * units, size=RESAMPLES).astype(np.float64)


def _resampled_medians(latency: Latency, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of each resample, without building any: weighted medians over ranks that are sorted once."""
    units = _units(latency)
    values = np.concatenate([np.asarray(unit, dtype=np.float64) for unit in units])
    unit_of = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    order = np.argsort(values, kind="stable")
    bins = min(len(values), RANK_BINS)
    bin_of_rank = np.arange(len(values)) * bins // len(values)
    counts = np.bincount(unit_of[order] * bins + bin_of_rank, minlength=len(units) * bins).reshape(-1, bins)
    mass = np.cumsum(draws @ counts, axis=1)
    chosen = (mass >= mass[:, -1:] / 2).argmax(axis=1)
    middle_rank = (np.searchsorted(bin_of_rank, chosen) + np.searchsorted(bin_of_rank, chosen, "right") - 1) // 2
    medians: NDArray[np.float64] = values[order][middle_rank]
    return medians


def _middle95(values: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
