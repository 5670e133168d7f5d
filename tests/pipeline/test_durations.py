import pytest

from edgepress.pipeline.durations import seconds
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
