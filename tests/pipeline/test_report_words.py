"""Figures are written so that they cannot be misread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.pipeline.report import words
from edgepress.pipeline.report.schema import Accuracy, Limit, Parity


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.0123"),
        (0.412, "0.412"),
        (4.119, "4.12"),
        (41.19, "41.2"),
        (411.9, "412"),
        (41190.0, "41190"),
        (0, "0"),
    ],
)
def test_a_number_has_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert words.number(value) == text


def test_nothing_is_ever_written_as_minus_zero() -> None:
    assert words.number(-0.001, 1) == "0.0"
    assert words.signed(-0.001, 1) == "0.0"
    assert words.signed(0.3, 1) == "+0.3"
    assert words.signed(-0.3, 1) == "−0.3"


@given(st.floats(1e-3, 1e4), st.floats(1e-3, 0.5))
def test_an_interval_is_written_with_the_digits_of_its_value(value: float, share: float) -> None:
    text = words.with_interval(value, (value * (1 - share), value * (1 + share)))
    shown, low, high = (float(part) for part in text.replace("(", "").replace(")", "").replace("–", " ").split())
    assert low <= shown <= high
    assert shown == pytest.approx(value, rel=0.006)


def test_a_narrow_interval_gets_one_more_digit() -> None:
    assert words.with_interval(0.2182, (0.2179, 0.2184)) == "0.2182 (0.2179–0.2184)"
    assert words.with_interval(0.2182, (0.21, 0.23), unit=" ms") == "0.218 ms (0.210–0.230)"


def test_plus_minus_is_the_longer_side() -> None:
    assert words.plus_minus(1.0, (0.9, 1.3)) == "1.00 ±0.30"


def test_an_accuracy_has_the_decimals_that_its_images_allow() -> None:
    few = Accuracy(value=97.44, n=449, ci95=(95.8, 98.6), where="device", drop=1.114, drop_ci95=(-0.2, 2.06))
    assert words.accuracy(few) == "97.4 % ±1.4"
    assert words.change(few) == "−1.1 (−2.1 to +0.2)"
    assert words.accuracy(few.model_copy(update={"n": 10_000})) == "97.44 % ±1.40"


def test_a_missing_figure_is_not_measured() -> None:
    for write in (words.accuracy, words.change, words.latency, words.ratio, words.parity, words.mib):
        assert write(None) == "not measured"
    assert words.count(None) == "not counted"


def test_almost_all_is_not_all() -> None:
    almost = Parity(argmax_agreement=0.99996, max_abs_diff=0.1, n=100_000, ok=True)
    assert words.parity(almost) == "agrees 99.9 %"
    assert words.parity(almost.model_copy(update={"argmax_agreement": 1.0})) == "agrees 100 %"
    assert words.parity(almost.model_copy(update={"argmax_agreement": 0.5, "ok": False})) == "differs 50.0 %"


def test_a_value_just_over_its_limit_does_not_look_equal_to_it() -> None:
    missed = Limit(limit=2.0, value=2.00004, met=False, why="")
    assert words.limit("latency_ms", missed) == ("median latency", "at most 2 ms", "2.00004 ms")
    equal = Limit(limit=2.0, value=2.0, met=True, why="")
    assert words.limit("latency_ms", equal)[2] == "2.00 ms"
    assert words.limit("speedup", Limit(limit=3.0, value=None, met=None, why=""))[1:] == (
        "at least 3×",
        "not measured",
    )


@pytest.mark.parametrize(("size_bytes", "text"), [(512, "0.500 KiB"), (61_480, "60.0 KiB"), (1_300_000, "1.24 MiB")])
def test_sizes_are_in_powers_of_1024(size_bytes: int, text: str) -> None:
    assert words.size(size_bytes) == text


def test_every_state_is_a_word_as_well_as_a_sign() -> None:
    assert [words.state(met) for met in (True, False, None)] == ["✓ met", "✗ missed", "? not known"]
