import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgepress.targets.statistics import LOADED_AGAIN, Latency, mcnemar, paired_drop, ratio, wilson

ROUNDS = st.lists(st.lists(st.floats(0.001, 1000), min_size=1, max_size=8).map(tuple), min_size=1, max_size=12).map(
    tuple
)


def noisy(*, seed: int, factor: float = 1.0, rounds: int = 40, samples: int = 5) -> Latency:
    """Rounds with a disturbance of their own, on top of the noise of every sample."""
    rng = np.random.default_rng(seed)
    level = 1 + 0.05 * rng.normal(size=(rounds, 1))
    values = factor * level * (1 + 0.02 * rng.normal(size=(rounds, samples)))
    return Latency(samples_ms=tuple(tuple(float(value) for value in visit) for visit in values))


@given(ROUNDS, st.floats(0, 1))
def test_a_percentile_is_a_latency_that_was_seen(rounds: tuple[tuple[float, ...], ...], share: float) -> None:
    assert Latency(samples_ms=rounds).percentile_ms(share) in {sample for visit in rounds for sample in visit}


@given(ROUNDS)
def test_percentiles_do_not_fall_as_their_share_grows(rounds: tuple[tuple[float, ...], ...]) -> None:
    latency = Latency(samples_ms=rounds)
    found = [latency.percentile_ms(share) for share in (0, 0.1, 0.5, 0.9, 0.99, 1)]
    assert found == sorted(found)
    assert found[0] == latency.minimum_ms


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.75, 3), (0.9, 4), (1.0, 4)])
def test_percentiles_are_nearest_ranks(share: float, expected: float) -> None:
    assert Latency(samples_ms=((4.0, 1.0), (3.0, 2.0))).percentile_ms(share) == expected


@given(ROUNDS)
def test_the_interval_of_the_median_lies_within_the_samples(rounds: tuple[tuple[float, ...], ...]) -> None:
    latency = Latency(samples_ms=rounds)
    low, high = latency.median_ci95_ms
    everything = [sample for visit in rounds for sample in visit]
    assert min(everything) <= low <= high <= max(everything)


def test_the_same_samples_always_have_the_same_interval() -> None:
    assert noisy(seed=0).median_ci95_ms == noisy(seed=0).median_ci95_ms


def test_the_interval_is_that_of_a_bootstrap_that_builds_every_resample() -> None:
    latency = noisy(seed=3)
    rounds = np.array(latency.samples_ms)
    rng = np.random.default_rng(0)
    medians = [np.median(rounds[rng.integers(0, len(rounds), len(rounds))]) for _ in range(4000)]
    np.testing.assert_allclose(latency.median_ci95_ms, np.percentile(medians, [2.5, 97.5]), rtol=0.005)


def test_ranks_in_bins_are_close_to_exact_ranks() -> None:
    latency = noisy(seed=4, rounds=60, samples=200)
    rounds = np.array(latency.samples_ms)
    rng = np.random.default_rng(0)
    medians = [np.median(rounds[rng.integers(0, len(rounds), len(rounds))]) for _ in range(500)]
    np.testing.assert_allclose(latency.median_ci95_ms, np.percentile(medians, [2.5, 97.5]), rtol=0.01)


def test_about_95_in_100_intervals_hold_the_true_median() -> None:
    intervals = [noisy(seed=seed, samples=3).median_ci95_ms for seed in range(60)]
    assert 52 <= sum(low <= 1.0 <= high for low, high in intervals) <= 60


def test_more_samples_in_the_same_rounds_do_not_pretend_to_know_more() -> None:
    few, many = noisy(seed=5, samples=5), noisy(seed=5, samples=500)
    assert many.relative_width > few.relative_width / 2


def test_with_few_rounds_single_samples_are_resampled() -> None:
    low, high = noisy(seed=6, rounds=1, samples=50).median_ci95_ms
    assert low < high


def test_a_latency_is_one_times_as_fast_as_itself_but_for_what_loading_it_again_would_change() -> None:
    found = ratio(noisy(seed=7), noisy(seed=7))
    assert (found.value, found.low, found.high) == pytest.approx((1, 1 - LOADED_AGAIN, 1 + LOADED_AGAIN))


def test_what_loading_again_changes_hardly_widens_an_interval_that_is_wide_already() -> None:
    found = ratio(noisy(seed=8, rounds=8), noisy(seed=9, rounds=8))
    bare = 0.5 * (found.high - found.low)
    assert bare > 3 * LOADED_AGAIN
    assert bare - np.sqrt(bare**2 - LOADED_AGAIN**2) < 0.2 * LOADED_AGAIN


def test_a_ratio_above_one_means_faster_than_the_baseline() -> None:
    found = ratio(noisy(seed=8, factor=2.0), noisy(seed=9, factor=1.0))
    assert found.low < 2.0 < found.high
    assert found.low > 1.8


def test_what_slows_both_in_a_round_cancels_out_of_the_ratio() -> None:
    baseline = noisy(seed=10)
    rng = np.random.default_rng(0)
    same_rounds = Latency(
        samples_ms=tuple(tuple(s / 1.05 * (1 + 0.002 * rng.normal()) for s in visit) for visit in baseline.samples_ms)
    )
    other_rounds = Latency(samples_ms=tuple(same_rounds.samples_ms[i] for i in rng.permutation(40)))
    paired, unpaired = ratio(baseline, same_rounds), ratio(baseline, other_rounds)
    assert paired.low > 1.0
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_holds_the_share_and_stays_a_share(successes: int, more: int) -> None:
    count = successes + more - 1
    if count == 0:
        return
    low, high = wilson(successes, count)
    assert 0 <= low <= 100 * successes / count <= high <= 100
    assert low < high


def test_wilson_agrees_with_the_published_example() -> None:
    low, high = wilson(81, 263)  # Newcombe 1998, table II, method 3
    assert (round(low / 100, 4), round(high / 100, 4)) == (0.2553, 0.3662)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 successes out of 0"):
        wilson(0, 0)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n))))
def test_swapping_two_models_turns_the_drop_round(right: tuple[np.ndarray, np.ndarray]) -> None:
    drop, low, high = paired_drop(*right)
    back, back_low, back_high = paired_drop(*reversed(right))
    assert drop == pytest.approx(-back)
    assert (low, high) == pytest.approx((-back_high, -back_low))
    assert -100 <= low <= drop <= high <= 100


def test_models_that_agree_everywhere_still_have_an_interval() -> None:
    right = np.arange(1000) % 10 > 0
    drop, low, high = paired_drop(right, right)
    assert drop == 0
    assert -1 < low < 0 < high < 1


def test_pairing_is_tighter_than_two_separate_intervals() -> None:
    before = np.arange(1000) % 10 > 0
    after = before.copy()
    after[1:6] = False
    drop, low, high = paired_drop(before, after)
    apart = wilson(int(before.sum()), 1000), wilson(int(after.sum()), 1000)
    assert drop == pytest.approx(0.5)
    assert high - low < apart[0][1] - apart[1][0]


def test_about_95_in_100_intervals_hold_the_true_drop() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        before = rng.random(500) < 0.9
        after = np.where(rng.random(500) < 0.04, ~before, before)  # of 90 right 3.6 are lost, of 10 wrong 0.4 gained
        _, low, high = paired_drop(before, after)
        held += low <= 3.2 <= high
    assert 0.92 <= held / 300 <= 0.99


def test_answers_to_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same images"):
        paired_drop(np.ones(3, dtype=bool), np.ones(4, dtype=bool))


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (0, 6, 2 / 64), (9, 1, 22 / 1024)]
)
def test_mcnemar_counts_how_often_chance_divides_disagreements_so(lost: int, gained: int, p: float) -> None:
    assert mcnemar(lost, gained) == pytest.approx(p)


def test_mcnemar_takes_thousands_of_disagreements() -> None:
    assert mcnemar(2600, 2400) == pytest.approx(0.0049, abs=0.0003)  # the normal approximation gives 0.0049
