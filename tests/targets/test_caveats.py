import random
from typing import Any

import pytest

from edgepress.targets.caveats import caveats, drift, two_speeds
from edgepress.targets.statistics import Latency

QUIET = {"usable_cores": 2, "load_1m": 0.0, "governor": "performance", "container": {"cores": None}}


def measured(*, level: Any = lambda index: 1.0, rounds: int = 60, samples: int = 20, **facts: Any) -> Latency:
    """Rounds around level(index of the sample), with 1 % of noise."""
    rng = random.Random(0)
    values = [level(index) * (1 + 0.01 * rng.gauss(0, 1)) for index in range(rounds * samples)]
    visits = tuple(tuple(values[start : start + samples]) for start in range(0, len(values), samples))
    return Latency(samples_ms=visits, **facts)


def test_a_steady_run_on_a_quiet_machine_has_no_caveat() -> None:
    assert caveats({"int8": measured()}, QUIET) == []


@pytest.mark.parametrize(
    ("latency", "words"),
    [
        (measured(rounds=6, samples=10), "60 samples are few"),
        (measured(rounds=30), "99th percentile rests on 600 samples"),
        (measured(precision_goal=1e-5), "not to the ±0.0 % asked for"),
        (measured(settled=False), "still changing when its warm-up ended"),
        (measured(calls_per_sample=7), "mean of 7 calls"),
        (measured(level=lambda index: 1 + index / 6000), "% slower than the first, a sign of throttling"),
        (measured(level=lambda index: 2 - index / 6000), "% faster than the first, a sign of a cold start"),
        (measured(level=lambda index: 1 + 0.5 * (index // 40 % 2)), "two speeds, about 1 ms and 1.5 ms"),
        (measured(level=lambda index: 2.0 ** (index % 7 // 5 * (index % 5))), "inference in ten took more than"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_weakness_of_the_samples_is_told_with_its_engine(latency: Latency, words: str) -> None:
    found = caveats({"int8": latency}, QUIET)
    assert [sentence for sentence in found if words in sentence], found
    assert all(sentence.startswith("int8: ") and sentence.endswith(".") for sentence in found)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"usable_cores": 1}, "2 threads ran on 1 usable cores"),
        ({"container": {"cores": 0.5}}, "may use 0.5 cores and 2 threads ran"),
        ({"load_1m": 1.9}, "was busy before it started (load 1.9"),
        ({"governor": "powersave"}, "governor is 'powersave'"),
    ],
)
def test_a_weakness_of_the_machine_is_told(machine: dict[str, Any], words: str) -> None:
    found = caveats({"int8": measured(threads=2)}, QUIET | machine)
    assert any(words in sentence for sentence in found), found


def test_a_machine_of_which_nothing_is_known_has_no_caveat() -> None:
    assert caveats({"int8": measured()}, {}) == []


def test_drift_is_the_second_half_against_the_first() -> None:
    stepped = measured(level=lambda index: 1.0 if index < 600 else 1.2)
    assert drift(stepped) == pytest.approx(0.2, abs=0.01)


def test_noise_of_one_kind_is_no_second_speed() -> None:
    rng = random.Random(1)
    for draw in (lambda: rng.gauss(1, 0.1), lambda: rng.uniform(0.5, 1.5), lambda: 1 + rng.expovariate(5)):
        values = tuple(draw() for _ in range(2000))
        assert two_speeds(Latency(samples_ms=(values,))) is None


def test_a_few_interrupts_are_no_second_speed() -> None:
    assert two_speeds(measured(level=lambda index: 5.0 if index % 50 == 0 else 1.0)) is None
