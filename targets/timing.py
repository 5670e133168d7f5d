"""How long does each of several calls take? The only timing loop: all in turn, every sample kept."""

import gc
import itertools
import math
import random
import statistics as plain
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from .statistics import Latency, Stopped

WINDOW = 20  # calls: the warm-up ends when two windows in a row have the same median ...
STEADY = 0.02  # ... within this share
LEAST_WARMUP = 2  # even a call that takes longer than the whole warm-up: the first one builds kernels
VISIT_NS = 25e6  # long enough that coming back to a call is rare, short enough that a burst hits all of them
MOST_CALLS_PER_VISIT = 200
MOST_CALLS_PER_SAMPLE = 2**20  # ends the search where a clock stands still
MOST_WARMUP = 100_000  # calls: likewise
LEAST_ROUNDS = 3
ROUNDS_TO_STOP = 20  # fewer cannot show that a narrow interval is no accident
SAMPLES_TO_STOP = 200
CHECK_EVERY = 1.3  # times as many rounds as at the last look, since the bootstrap costs some milliseconds
CLOCK_STEPS = 100  # a sample lasts this many steps of the clock, so that reading it costs less than 1 %

PRECISION_GOAL = 0.01  # half the interval of a median, as a share of it

Clock = Callable[[], int]
Call = Callable[[], object]


@dataclass(kw_only=True)
class _Runner:
    """One call while it is timed."""

    call: Call
    warmup_calls: int = 0
    settled: bool = False
    calls_per_sample: int = 1
    calls_per_visit: int = 1
    visits: list[tuple[float, ...]] = field(default_factory=list)
    visited_s: list[float] = field(default_factory=list)


def time_in_turn(
    calls: Mapping[str, Call],
    *,
    seconds: float,
    precision_goal: float = PRECISION_GOAL,
    warmup_seconds: float = 2.0,
    min_warmup: int = WINDOW,
    rng: random.Random | None = None,
    clock: Clock = time.perf_counter_ns,
    visiting: Callable[[str], None] = lambda name: None,
    stopping: Callable[[], bool] = lambda: False,
    threads: int = 1,
) -> dict[str, Latency]:
    """Time every call, in rounds that visit all of them in a shuffled order.

    Goes on until the 95 % interval of every median is within ± precision_goal of it (0: never), or `seconds`
    are used up; the warm-up comes on top and takes at most `warmup_seconds` for each call. clock: nanoseconds.
    visiting: told which call comes next, while no clock runs. stopping: asked before each visit; when it says
    yes, what was measured so far is returned, without calls of which there is nothing. threads: noted in the
    result.
    """
    if not calls:
        return {}
    rng = rng or random.Random(0)
    runners = {name: _Runner(call=call) for name, call in calls.items()}
    step_ns = _clock_step_ns(clock)
    with _no_garbage_collection():
        for name, runner in runners.items():
            if stopping():
                return {}
            visiting(name)
            _warm_up(runner, clock=clock, limit_ns=warmup_seconds * 1e9, least=min_warmup, step_ns=step_ns)
        stopped = _rounds(
            runners, seconds=seconds, goal=precision_goal, rng=rng, clock=clock, visiting=visiting, stopping=stopping
        )
    return {
        name: _latency(runner, stopped=stopped, goal=precision_goal, threads=threads)
        for name, runner in runners.items()
        if runner.visits
    }


def _rounds(
    runners: Mapping[str, _Runner],
    *,
    seconds: float,
    goal: float,
    rng: random.Random,
    clock: Clock,
    visiting: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Stopped:
    order = list(runners)
    start_ns = clock()
    rounds, look_at = 0, ROUNDS_TO_STOP
    while True:
        rng.shuffle(order)
        for name in order:
            if stopping():
                _forget_round(runners, rounds)
                return "interrupted"
            visiting(name)
            _visit(runners[name], clock=clock, start_ns=start_ns)
        rounds += 1
        if rounds >= look_at:
            look_at = math.ceil(rounds * CHECK_EVERY)
            if goal and all(_is_precise(runner, goal) for runner in runners.values()):
                return "precise"
        if rounds >= LEAST_ROUNDS and clock() - start_ns >= seconds * 1e9:
            return "time"


def _forget_round(runners: Mapping[str, _Runner], rounds: int) -> None:
    """Drop a round that not all calls took part in, so that rounds stay pairs; unless it is all there is."""
    for runner in runners.values():
        del runner.visits[max(1, rounds) :], runner.visited_s[max(1, rounds) :]


def _visit(runner: _Runner, *, clock: Clock, start_ns: int) -> None:
    call, repeat = runner.call, range(runner.calls_per_sample)
    if runner.calls_per_visit > 1:
        call()  # untimed: the caches still hold the weights of the one before
    samples = []
    runner.visited_s.append((clock() - start_ns) / 1e9)
    for _ in range(runner.calls_per_visit):
        before = clock()
        for _ in repeat:
            call()
        samples.append((clock() - before) / runner.calls_per_sample / 1e6)
    runner.visits.append(tuple(samples))


def _warm_up(runner: _Runner, *, clock: Clock, limit_ns: float, least: int, step_ns: int) -> None:
    """Call until the times stand still, then decide how many calls a sample and a visit have."""
    times_ns: list[int] = []
    start = clock()
    while True:
        before = clock()
        runner.call()
        now = clock()
        times_ns.append(now - before)
        runner.settled = len(times_ns) >= least and _is_steady(times_ns)
        if runner.settled or (len(times_ns) >= LEAST_WARMUP and now - start >= limit_ns):
            break
        if len(times_ns) >= MOST_WARMUP:
            break
    runner.warmup_calls = len(times_ns)
    typical_ns = plain.median(times_ns[-2 * WINDOW :])
    runner.calls_per_sample, sample_ns = _sample(runner.call, clock, typical_ns=typical_ns, step_ns=step_ns)
    runner.calls_per_visit = max(1, min(MOST_CALLS_PER_VISIT, round(VISIT_NS / sample_ns)))


def _sample(call: Call, clock: Clock, *, typical_ns: float, step_ns: int) -> tuple[int, float]:
    """How many calls one sample needs for the clock to see it well, and how long it then takes."""
    if typical_ns >= CLOCK_STEPS * step_ns:
        return 1, typical_ns
    count = 1
    while True:
        count *= 2
        before = clock()
        for _ in range(count):
            call()
        sample_ns = clock() - before
        if sample_ns >= CLOCK_STEPS * step_ns or count >= MOST_CALLS_PER_SAMPLE:
            return count, max(1.0, sample_ns)


def _is_steady(times_ns: list[int]) -> bool:
    if len(times_ns) < 2 * WINDOW or len(times_ns) % WINDOW:
        return False
    last, before = plain.median(times_ns[-WINDOW:]), plain.median(times_ns[-2 * WINDOW : -WINDOW])
    return abs(last - before) <= STEADY * before


def _is_precise(runner: _Runner, goal: float) -> bool:
    if sum(map(len, runner.visits)) < SAMPLES_TO_STOP:
        return False
    return Latency(samples_ms=tuple(runner.visits)).relative_width <= goal


def _latency(runner: _Runner, *, stopped: Stopped, goal: float, threads: int) -> Latency:
    return Latency(
        samples_ms=tuple(runner.visits),
        visited_s=tuple(runner.visited_s),
        calls_per_sample=runner.calls_per_sample,
        warmup_calls=runner.warmup_calls,
        settled=runner.settled,
        stopped=stopped,
        precision_goal=goal,
        threads=threads,
    )


def _clock_step_ns(clock: Clock) -> int:
    """The smallest step seen on the clock: its resolution, or what it costs to read it."""
    readings = [clock() for _ in range(200)]
    steps = [later - earlier for earlier, later in itertools.pairwise(readings) if later > earlier]
    return min(steps, default=1)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a call would be counted as the model's time."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
