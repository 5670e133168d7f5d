"""What a long run shows, on samples that are made up."""

import random
from collections.abc import Callable

import pytest

from edgepress.targets.statistics import Latency
from edgepress.targets.surroundings import Look
from edgepress.targets.sustained import POINTS, sentence, summary

ROUNDS, SAMPLES = 600, 5


def lasting(level: Callable[[float], float], *, seed: int = 0) -> Latency:
    """level: milliseconds at a share of the run, 0 to 1; with 2 % of noise."""
    rng = random.Random(seed)
    visits = tuple(
        tuple(level(index / ROUNDS) * (1 + 0.02 * rng.gauss(0, 1)) for _ in range(SAMPLES)) for index in range(ROUNDS)
    )
    return Latency(samples_ms=visits, visited_s=tuple(float(index) for index in range(ROUNDS)))


def test_a_model_that_heat_slows_down_more_than_another_loses_its_place() -> None:
    found = summary({"hot": lasting(lambda at: 1 + 0.5 * at), "cool": lasting(lambda at: 1.2, seed=1)}, [])
    assert found is not None
    assert (found["ranking_at_start"], found["ranking_at_end"]) == (["hot", "cool"], ["cool", "hot"])
    assert found["flips"] == [["hot", "cool"]]
    assert "The order changed: hot was faster than cool at the start" in sentence(found)
    assert found["engines"]["hot"]["slowdown"][0] == pytest.approx(1.45 / 1.025, rel=0.02)


def test_two_models_of_one_speed_that_change_places_have_not_changed_the_order() -> None:
    found = summary({"a": lasting(lambda at: 1 + 0.001 * at), "b": lasting(lambda at: 1.001 - 0.001 * at, seed=1)}, [])
    assert found is not None
    assert found["flips"] == []
    assert "still held at the end; none became surely slower" in sentence(found)


def test_what_slows_down_together_keeps_its_order_and_the_slow_down_is_told() -> None:
    found = summary({"a": lasting(lambda at: 1 + at), "b": lasting(lambda at: 2 * (1 + at), seed=1)}, [])
    assert found is not None
    assert found["flips"] == []
    assert "slowed down most, 1.8" in sentence(found)


def test_curves_have_few_points_and_follow_the_samples() -> None:
    looks = [Look(at_s=float(second), frequency_mhz=None, temperature_c=40 + second / 10) for second in range(1000)]
    found = summary({"a": lasting(lambda at: 1 + at)}, looks)
    assert found is not None
    curve = found["engines"]["a"]
    assert len(curve["at_s"]) == len(curve["median_ms"]) == len(curve["p90_ms"]) == POINTS
    assert curve["median_ms"][0] == pytest.approx(1.0, rel=0.05)
    assert curve["median_ms"][-1] == pytest.approx(2.0, rel=0.05)
    assert all(high >= low for low, high in zip(curve["median_ms"], curve["p90_ms"], strict=True))
    assert len(found["temperature_c"]["values"]) <= POINTS
    assert found["frequency_mhz"] is None


def test_a_run_of_nothing_has_no_summary() -> None:
    assert summary({}, []) is None


def test_a_run_that_was_stopped_early_still_has_one() -> None:
    short = Latency(samples_ms=((1.0, 1.1), (1.0, 1.2)), visited_s=(0.0, 1.0))
    found = summary({"a": short}, [])
    assert found is not None
    assert found["engines"]["a"]["at_s"] == [0.0, 1.0]
