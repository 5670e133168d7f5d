import pytest

from edgepress.targets.durations import duration, seconds
from edgepress.targets.errors import RecipeError


@pytest.mark.parametrize(
    ("words", "expected"),
    [("90", 90), ("90s", 90), ("10min", 600), ("10 min", 600), ("2m", 120), ("1.5h", 5400), ("0.5s", 0.5)],
)
def test_a_duration_is_read_as_people_write_it(words: str, expected: float) -> None:
    assert seconds(words) == expected


@pytest.mark.parametrize("words", ["", "ten minutes", "-3s", "5 days", "1:30", "nan"])
def test_what_is_no_duration_is_refused_with_an_example(words: str) -> None:
    with pytest.raises(RecipeError, match="10min"):
        seconds(words)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2e-5, "under 1 ms"),
        (0.0123, "0.0123 s"),
        (3.14159, "3.14 s"),
        (42, "42 s"),
        (75.2, "1 min 15 s"),
        (3599.9, "1 h 00 min"),
        (7265, "2 h 01 min"),
    ],
)
def test_durations_are_written_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
