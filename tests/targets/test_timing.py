"""The timing loop against simulated machines: a clock that only calls move."""

import gc
import random
from collections.abc import Callable

import pytest
from simulated import World

from edgepress.targets.statistics import ratio
from edgepress.targets.timing import time_in_turn


def test_every_round_visits_every_call_once() -> None:
    world = World()
    visited: list[str] = []
    calls = {name: world.call(40) for name in "abc"}
    found = time_in_turn(calls, seconds=2, warmup_seconds=0.1, clock=world.clock, visiting=visited.append)
    rounds = [tuple(visited[start : start + 3]) for start in range(3, len(visited), 3)]
    assert {tuple(sorted(order)) for order in rounds} == {("a", "b", "c")}
    assert len(set(rounds)) > 1, "the order never changed"
    assert {len(latency.samples_ms) for latency in found.values()} == {len(rounds)}


def test_the_order_depends_only_on_the_generator() -> None:
    orders = []
    for _ in range(2):
        world, visited = World(), []
        calls = {name: world.call(40) for name in "abc"}
        time_in_turn(calls, seconds=2, clock=world.clock, rng=random.Random(5), visiting=visited.append)
        orders.append(visited)
    assert orders[0] == orders[1]


def test_samples_are_the_time_of_one_call() -> None:
    world = World()
    found = time_in_turn({"a": world.call(2.0), "b": world.call(5.0)}, seconds=1, clock=world.clock)
    assert (found["a"].median_ms, found["b"].median_ms) == (2.0, 5.0)
    assert found["a"].calls_per_sample == 1


def test_two_equal_calls_are_not_told_apart_on_a_noisy_machine() -> None:
    told_apart = 0
    for seed in range(10):
        world = World(slowdown=lambda second: 1.5 if second % 1 < 0.2 else 1.0)
        calls = {
            "a": world.call(1, noise=0.1, seed=2 * seed),
            "b": world.call(1, noise=0.1, seed=2 * seed + 1),
        }
        found = time_in_turn(calls, seconds=1, clock=world.clock, rng=random.Random(seed))
        compared = ratio(found["a"], found["b"])
        told_apart += not compared.low <= 1 <= compared.high
    assert told_apart <= 2


@pytest.mark.parametrize(
    "slowdown",
    [lambda second: 1 + second / 4, lambda second: 3.0 if second % 2 < 0.3 else 1.0],
    ids=["a machine that heats up", "a machine with bursts of other work"],
)
def test_a_call_that_is_a_tenth_faster_is_found_on(slowdown: Callable[[float], float]) -> None:
    world = World(slowdown=slowdown)
    calls = {"slow": world.call(1.1, noise=0.03, seed=1), "fast": world.call(1.0, noise=0.03, seed=2)}
    found = time_in_turn(calls, seconds=4, precision_goal=1e-6, clock=world.clock)
    compared = ratio(found["slow"], found["fast"])
    assert compared.low > 1.05
    assert compared.value == pytest.approx(1.1, rel=0.03)


def test_it_stops_as_soon_as_the_median_is_known() -> None:
    world = World()
    found = time_in_turn({"a": world.call(1, noise=0.001)}, seconds=1000, clock=world.clock)
    assert found["a"].stopped == "precise"
    assert found["a"].relative_width <= 0.01
    assert world.now_ns < 10e9


def test_it_stops_when_the_time_is_used_up_and_says_so() -> None:
    world = World()
    found = time_in_turn(
        {"a": world.call(10, noise=0.3)},
        seconds=2,
        precision_goal=1e-4,
        warmup_seconds=0.5,
        clock=world.clock,
    )
    assert found["a"].stopped == "time"
    assert 2e9 < world.now_ns < 3e9


def test_a_call_slower_than_the_whole_time_is_still_measured_three_times() -> None:
    world = World()
    found = time_in_turn({"a": world.call(5000)}, seconds=1, warmup_seconds=1, clock=world.clock)
    assert found["a"].count == 3
    assert found["a"].warmup_calls == 2


def test_the_warm_up_goes_on_until_the_times_stand_still() -> None:
    world = World(slowdown=lambda second: 3 - 2 * min(second, 1.0))
    found = time_in_turn({"a": world.call(1)}, seconds=1, warmup_seconds=5, clock=world.clock)
    assert found["a"].settled
    assert found["a"].median_ms == pytest.approx(1.0, rel=0.05)


def test_a_warm_up_that_never_settles_is_told() -> None:
    world = World(slowdown=lambda second: 1 + 20 * second)
    found = time_in_turn({"a": world.call(1)}, seconds=0.1, warmup_seconds=0.5, clock=world.clock)
    assert not found["a"].settled


def test_calls_too_fast_for_the_clock_are_timed_in_batches() -> None:
    world = World(step_ns=1000)
    tick = world.call(0.0001)

    def reading() -> int:
        world.now_ns += 300  # reading a clock takes time, or a batch would never end
        return world.clock()

    found = time_in_turn({"a": tick}, seconds=0.05, warmup_seconds=0.01, clock=reading)
    assert found["a"].calls_per_sample > 50
    assert found["a"].median_ms == pytest.approx(0.0001, rel=0.1)


def test_every_visit_keeps_when_it_was() -> None:
    world = World()
    found = time_in_turn({"a": world.call(30)}, seconds=1, clock=world.clock)["a"]
    assert len(found.visited_s) == len(found.samples_ms)
    assert list(found.visited_s) == sorted(found.visited_s)
    assert found.visited_s[-1] == pytest.approx(1.0, abs=0.1)


def test_garbage_collection_is_off_while_timing_and_on_again_after_a_failure() -> None:
    states = []

    def fail() -> None:
        states.append(gc.isenabled())
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        time_in_turn({"a": fail}, seconds=1)
    assert states == [False]
    assert gc.isenabled()


def test_nothing_to_time_takes_no_time() -> None:
    assert time_in_turn({}, seconds=10) == {}


def test_the_call_that_refills_the_caches_after_another_engine_is_not_counted() -> None:
    world = World()
    last: list[str] = []

    def cached(name: str) -> Callable[[], None]:
        cold, warm = world.call(9), world.call(2)

        def work() -> None:
            (warm if last == [name] else cold)()
            last[:] = [name]

        return work

    found = time_in_turn({"a": cached("a"), "b": cached("b")}, seconds=1, clock=world.clock)
    assert {latency.percentile_ms(1.0) for latency in found.values()} == {2.0}
