"""What is compared is loaded several times, each second time in the opposite order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepress.targets import duties
from edgepress.targets.events import Events
from edgepress.targets.jobs import SAMPLE, Engine, Job, unpack
from edgepress.targets.statistics import Latency, ratio


class Fake:
    """Answers after a while that grows with how many sessions are open before it."""

    input_name, input_shape, input_type = "input", (None, 2), "float32"

    def __init__(self, runtime: Runtime, name: str) -> None:
        self.runtime, self.name, self.late = runtime, name, len(runtime.open)
        runtime.open.append(name)
        runtime.loads.append(name)

    def __call__(self, batch: Any) -> tuple[Any, ...]:
        self.runtime.calls.append(self.name)
        self.runtime.now_ns += 1_000_000 + 100_000 * self.late
        return (batch * 2,)

    def close(self) -> None:
        self.runtime.open.remove(self.name)


class Runtime:
    def __init__(self) -> None:
        self.loads: list[str] = []
        self.open: list[str] = []
        self.calls: list[str] = []
        self.now_ns = 0
        self.broken: Callable[[str], bool] = lambda name: False

    def load(self, path: Path, **_: Any) -> Fake:
        if self.broken(path.stem):
            raise RuntimeError("no room")
        return Fake(self, path.stem)

    def int8_layers(self, path: Path, **_: Any) -> None:
        return None


@contextmanager
def listening() -> Iterator[tuple[Events, Callable[[], str]]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        yield Events(writing), lambda: os.read(reading, 1 << 20).decode()
    finally:
        os.close(reading)
        os.close(writing)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    found = Runtime()
    real = duties.time_in_turn
    monkeypatch.setattr(duties, "target", lambda name: found)
    monkeypatch.setattr(duties, "_pin", lambda threads: [])
    monkeypatch.setattr(duties, "time_in_turn", lambda *one, **two: real(*one, **two, clock=lambda: found.now_ns))
    monkeypatch.setattr(duties.time, "monotonic", lambda: found.now_ns / 1e9)
    return found


def timed(runtime: Runtime, folder: Path, *names: str, events: Events, seconds: float = 2.0) -> dict[str, Latency]:
    np.save(folder / SAMPLE, np.ones((1, 2), dtype=np.float32))
    engines = tuple(Engine(name=one, path=folder / one, runtime="fake", precision="fp32") for one in names)
    job = Job(mode="pinned", engines=engines, seconds=seconds, warmup_seconds=0.05)
    return {name: unpack(one) for name, one in duties.pinned(job, folder, events)["latency"].items()}


def test_what_comes_of_the_order_of_loading_cancels(runtime: Runtime, tmp_path: Path) -> None:
    with listening() as (events, _):
        found = timed(runtime, tmp_path, "a", "b", "c", events=events)
    assert runtime.loads == ["a", "b", "c", "c", "b", "a"]
    assert runtime.open == ["c", "b", "a"]
    assert {len(one.samples_ms) for one in found.values()} == {len(found["a"].samples_ms)}
    assert {min(map(min, one.samples_ms)) for one in (found["a"], found["c"])} == {1.0}
    assert {max(map(max, one.samples_ms)) for one in (found["a"], found["c"])} == {1.2}
    same = ratio(found["a"], found["c"])
    assert same.low < 1 < same.high
    for one in found.values():
        assert list(one.visited_s) == sorted(one.visited_s)


def test_with_more_time_there_are_four_loads_in_pairs_of_opposite_order(runtime: Runtime, tmp_path: Path) -> None:
    with listening() as (events, _):
        found = timed(runtime, tmp_path, *"abcd", events=events, seconds=8.0)
    loads = [runtime.loads[at : at + 4] for at in range(0, 16, 4)]
    assert loads[0] == list("abcd")
    assert loads[1] == loads[0][::-1]
    assert loads[3] == loads[2][::-1]
    assert sorted(loads[2]) == loads[0] != loads[2]
    assert runtime.open == loads[3]
    for one in found.values():
        assert one.precision_goal == 0.01
        assert len(one.rounds_by_load) == 4
        assert sum(one.rounds_by_load) == len(one.samples_ms)
        assert list(one.visited_s) == sorted(one.visited_s)


def test_what_did_not_load_is_not_tried_again(runtime: Runtime, tmp_path: Path) -> None:
    runtime.broken = lambda name: name == "b"
    with listening() as (events, told):
        found = timed(runtime, tmp_path, "a", "b", "c", events=events)
        assert told().count("no room") == 1
    assert runtime.loads == ["a", "c", "c", "a"]
    assert set(found) == {"a", "c"}


def test_what_does_not_load_again_is_told_of_and_has_no_latency(runtime: Runtime, tmp_path: Path) -> None:
    runtime.broken = lambda name: name == "b" and runtime.loads.count("b") == 1
    with listening() as (events, told):
        found = timed(runtime, tmp_path, "a", "b", events=events)
        assert "no room" in told()
    assert set(found) == {"a"}


def test_ctrl_c_in_the_second_half_leaves_the_first(runtime: Runtime, tmp_path: Path) -> None:
    with listening() as (events, _):
        whole = len(timed(runtime, tmp_path, "a", "b", events=events)["a"].samples_ms)
        runtime.loads.clear()
        runtime.open.clear()

        def stop(name: str) -> bool:
            events.stopping = len(runtime.loads) == 3
            return False

        runtime.broken = stop
        found = timed(runtime, tmp_path, "a", "b", events=events)
    assert 0 < len(found["a"].samples_ms) == len(found["b"].samples_ms) < whole


def placed(*, spread: float, loads: int, seed: int) -> tuple[Latency, Latency]:
    """One engine twice, each load of it slower or faster as a whole by about so much."""
    rng = np.random.default_rng(seed)
    rounds = 60 // loads

    def latency() -> Latency:
        levels = np.repeat(np.exp(spread * rng.normal(size=loads)), rounds)
        samples = tuple(tuple(level * (1 + 0.03 * rng.normal(size=6))) for level in levels)
        return Latency(samples_ms=samples, rounds_by_load=(rounds,) * loads)

    return latency(), latency()


@pytest.mark.parametrize(
    ("spread", "loads", "most"), [(0.0, 4, 0.0), (0.01, 2, 0.15), (0.01, 4, 0.07), (0.02, 4, 0.14)]
)
def test_what_loads_differ_by_widens_the_interval(spread: float, loads: int, most: float) -> None:
    claims, blind = 0, 0
    for seed in range(100):
        pair = placed(spread=spread, loads=loads, seed=seed)
        found, unaware = ratio(*pair), ratio(*(replace(one, rounds_by_load=()) for one in pair))
        claims += not found.low <= 1 <= found.high
        blind += not unaware.low <= 1 <= unaware.high
    assert claims <= 100 * most
    assert 2 * blind >= 3 * claims


def test_a_real_difference_is_found_over_loads_that_differ() -> None:
    first, second = placed(spread=0.005, loads=4, seed=0)
    slower = replace(second, samples_ms=tuple(tuple(1.06 * one for one in visit) for visit in second.samples_ms))
    assert ratio(first, slower).high < 1


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_loads_of_a_few_rounds_count_too(rounds: int) -> None:
    """As of a large network, whose single round takes its share of the time: 10 % between loads, nothing within."""
    levels = np.repeat([1.0, 1.1], rounds)
    first = Latency(samples_ms=((1.0,) * 4,) * (2 * rounds), rounds_by_load=(rounds, rounds))
    second = replace(first, samples_ms=tuple((float(level),) * 4 for level in levels))
    found, unaware = ratio(first, second), ratio(*(replace(one, rounds_by_load=()) for one in (first, second)))
    assert found.low < unaware.low - 0.02
    assert found.high > 1.02 > unaware.high


def test_rounds_that_do_not_add_up_count_as_one_load() -> None:
    first, second = placed(spread=0.05, loads=4, seed=0)
    assert ratio(*(replace(one, rounds_by_load=(1, 2)) for one in (first, second))) == ratio(
        *(replace(one, rounds_by_load=()) for one in (first, second))
    )


def test_two_halves_are_precise_where_both_together_are() -> None:
    noisy = Latency(samples_ms=((1.0, 1.1),) * 8, visited_s=tuple(range(8)), warmup_calls=3, stopped="time")
    whole = noisy.then(noisy, at_s=10.0)
    assert whole.visited_s == (*range(8), *range(10, 18))
    assert (whole.count, whole.warmup_calls, whole.settled) == (32, 6, True)
    wild = Latency(samples_ms=tuple((float(1 + place % 2),) for place in range(8)), precision_goal=0.01)
    assert wild.then(wild, at_s=1.0).stopped == "time"
    steady = Latency(samples_ms=((1.0,),) * 8)
    assert steady.then(steady, at_s=1.0).stopped == "precise"
