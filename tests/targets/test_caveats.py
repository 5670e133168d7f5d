import random
from typing import Any

import pytest

from edgepress.targets.caveats import caveats, drift, told, two_speeds
from edgepress.targets.statistics import Latency

QUIET = {"usable_cores": 2, "load_1m": 0.0, "governor": "performance", "container": {"cores": None}}


def clock(median: float, *, end: float | None = None) -> dict[str, float]:
    return {"start": median, "lowest": median, "median": median, "highest": median, "end": end or median}


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
    assert [caveat for caveat in found if words in str(caveat)], found
    assert all(str(caveat).startswith("int8: ") and str(caveat).endswith(".") for caveat in found)
    assert all(caveat.about == "int8" and caveat.kind and caveat.advice for caveat in found)


def test_what_several_engines_share_is_said_once_by_the_one_that_has_most_of_it() -> None:
    engines = {
        "baseline": measured(level=lambda index: 1 + index / 6000),
        "int8": measured(level=lambda index: 1 + index / 2000, rounds=30),
        "pruned": measured(level=lambda index: 2 - index / 6000),
        "bf16": measured(),
    }
    found = told(caveats(engines, QUIET | {"load_1m": 1.9, "swap_used_mb": 900}))
    (slower,) = [text for text in found if "% slower than the first" in text]
    assert slower.startswith("baseline and int8, most of all int8: the second half was ")
    (faster,) = [text for text in found if "% faster than the first" in text]
    assert faster.startswith("pruned: the second half was ")
    assert [text for text in found if text.startswith("int8: the 99th percentile rests on 600 samples")]
    assert [text for text in found if text.startswith("The machine was busy")]
    assert [text for text in found if text.startswith("900 MiB")]
    assert not [text for text in found if "bf16" in text]


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"usable_cores": 1}, "2 threads ran on 1 usable cores"),
        ({"container": {"cores": 0.5}}, "may use 0.5 cores and 2 threads ran"),
        ({"load_1m": 1.9}, "was busy before it started (load 1.9"),
        ({"governor": "powersave"}, "governor is 'powersave'"),
        ({"swap_used_mb": 900}, "900 MiB lay in the swap space"),
        ({"jetson": {"clocks_held": False}}, "sudo jetson_clocks"),
        ({"during": {"others_on_pinned": 0.2}}, "took 20 % of the time of the CPUs"),
        ({"during": {"others_on_pinned": 0.0, "others_cpus": 1.2}}, "kept 1.2 CPUs busy"),
        ({"during": {"stolen": 0.08}}, "gave 8 % of the time of this virtual machine"),
        ({"frequency_limit_mhz": 4000.0, "during": {"frequency_mhz": clock(2000.0)}}, "stood at 2000 MHz of 4000 MHz"),
        ({"during": {"frequency_mhz": clock(3000.0, end=2000.0)}}, "held back by heat or power"),
        ({"during": {"throttle_events": 3, "temperature_c": {"highest": 97.0}}}, "held back by heat or power at 97 °C"),
        ({"during": {"container_stops": 4}}, "held back by its container's limit"),
        ({"during": {"swapped_pages": 12}}, "12 pages were swapped"),
    ],
)
def test_a_weakness_of_the_machine_is_told(machine: dict[str, Any], words: str) -> None:
    found = caveats({"int8": measured(threads=2)}, QUIET | machine)
    (told,) = [caveat for caveat in found if words in str(caveat)]
    assert told.about is None
    assert told.advice


def test_a_quiet_run_has_no_caveat_about_what_went_on_beside_it() -> None:
    during = {
        "others_on_pinned": 0.01, "others_cpus": 0.1, "stolen": 0.0, "throttle_events": 0, "swapped_pages": 0,
        "container_stops": 0, "frequency_mhz": clock(3900.0), "temperature_c": {"highest": 60.0},
    }  # fmt: skip
    assert caveats({"int8": measured()}, QUIET | {"during": during, "frequency_limit_mhz": 4000.0}) == []


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
