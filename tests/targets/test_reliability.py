"""When no claim may be made, on simulated machines: a clock that only calls move."""

import random
from collections.abc import Callable

import pytest
from simulated import World

from edgepress.targets.caveats import caveats
from edgepress.targets.reliability import unreliable
from edgepress.targets.statistics import Latency, ratio
from edgepress.targets.timing import time_in_turn

RUNS = 40


def bursts(second: float) -> float:
    return 3.0 if second % 2 < 0.3 else 1.0


def heat(second: float) -> float:
    return 1 + second / 10


def two_clocks(second: float) -> float:
    return 1.4 if second % 0.7 < 0.35 else 1.0


def throttled(second: float) -> float:
    return 1.0 if second < 2 else 1.8


QUIRKS = {
    "quiet": lambda second: 1.0, "bursts": bursts, "heat": heat, "two clocks": two_clocks, "throttled": throttled,
}  # fmt: skip


def compared(
    slowdown: Callable[[float], float], *, work: float = 1.0, seed: int = 0, seconds: float = 4.0, noise: float = 0.03
) -> dict[str, Latency]:
    """Two calls, the second with so much more work, timed to the end on a machine with that quirk."""
    world = World(slowdown=slowdown)
    calls = {
        "first": world.call(2, noise=noise, seed=2 * seed),
        "second": world.call(2 * work, noise=noise, seed=2 * seed + 1),
    }
    return time_in_turn(calls, seconds=seconds, precision_goal=0, clock=world.clock, rng=random.Random(seed))


def claims(found: dict[str, Latency]) -> bool:
    compared = ratio(found["first"], found["second"])
    return unreliable(found) is None and not compared.low <= 1 <= compared.high


@pytest.mark.parametrize("quirk", QUIRKS)
def test_an_engine_is_not_told_apart_from_itself(quirk: str) -> None:
    told_apart = sum(claims(compared(QUIRKS[quirk], seed=seed, seconds=1)) for seed in range(RUNS))
    assert told_apart <= 0.05 * RUNS


@pytest.mark.parametrize("quirk", QUIRKS)
def test_five_per_cent_more_work_is_found(quirk: str) -> None:
    found = sum(claims(compared(QUIRKS[quirk], work=1.05, seed=seed, seconds=4)) for seed in range(10))
    assert found >= 10 * 0.95


def test_a_quiet_machine_is_reliable_and_one_of_pure_noise_is_not() -> None:
    assert unreliable(compared(lambda second: 1.0)) is None
    rng = random.Random(0)
    wild = compared(lambda second: rng.lognormvariate(0, 1.5), noise=0.5, seconds=0.1)
    assert "no comparison with first is known better than to ±" in str(unreliable(wild))


def test_a_comparison_that_turns_round_in_the_middle_is_unreliable() -> None:
    first = Latency(samples_ms=tuple((1.0 + 0.001 * (i % 7),) * 5 for i in range(60)))
    second = Latency(samples_ms=tuple(((1.0 if i < 30 else 1.3) + 0.001 * (i % 5),) * 5 for i in range(60)))
    why = str(unreliable({"first": first, "second": second}))
    assert "second was 1.00 times as fast as first in the first half of the rounds and 0.77 times in the second" in why


def test_heat_that_slows_both_down_does_not_make_a_comparison_unreliable() -> None:
    assert unreliable(compared(throttled)) is None


def test_one_engine_alone_is_unreliable_when_its_median_is() -> None:
    rng = random.Random(0)
    wild = Latency(samples_ms=tuple((rng.lognormvariate(0, 1),) for _ in range(20)))
    assert "the median of only is known to ±" in str(unreliable({"only": wild}))
    assert unreliable({"only": Latency(samples_ms=((1.0,),) * 20)}) is None


def test_nothing_that_was_timed_is_not_unreliable() -> None:
    assert unreliable({}) is None


@pytest.mark.parametrize(("quirk", "kind"), [("heat", "drift"), ("throttled", "drift"), ("two clocks", "two speeds")])
def test_each_quirk_of_a_machine_is_told_by_its_name(quirk: str, kind: str) -> None:
    kinds = {caveat.kind for caveat in caveats(compared(QUIRKS[quirk], seconds=6), {})}
    assert kind in kinds
