"""Accuracy is reported on images that chose nothing, and nothing is chosen by images that weights were trained on."""

import pytest
import torch

from edgepress.stages.holdout import apportion
from edgepress.stages.splits import Split, in_memory
from edgepress.targets.errors import RecipeError


def numbered(first: int, count: int) -> Split:
    """Every image is known by its number."""
    numbers = torch.arange(first, first + count)
    return in_memory(numbers.view(-1, 1, 1, 1).float(), numbers % 4)


def numbers(split: Split) -> set[int]:
    return {int(number) for number in split.__getitems__(list(range(len(split))))[0].flatten()}


TRAIN, VAL, TEST = numbered(0, 200), numbered(1000, 40), numbered(2000, 100)


def divided(splits: dict[str, Split], *, given_weights: bool, val_share: float = 0.1) -> tuple[dict[str, Split], str]:
    parts, notes = apportion(splits, seed=0, val_share=val_share, given_weights=given_weights, source="imagefolder:x")
    return parts, " ".join(notes)


@pytest.mark.parametrize("given_weights", [True, False])
def test_splits_that_the_data_have_are_used_as_they_are(given_weights: bool) -> None:
    given = {"train": TRAIN, "val": VAL, "test": TEST}
    parts, words = divided(given, given_weights=given_weights)
    assert parts == given
    assert "data's own val" in words


@pytest.mark.parametrize("name", ["val", "test"])
def test_with_given_weights_the_only_holdout_is_divided_and_training_images_choose_nothing(name: str) -> None:
    parts, words = divided({"train": TRAIN, name: TEST}, given_weights=True)
    assert parts["train"] is TRAIN
    assert (len(parts["val"]), len(parts["test"])) == (20, 80)
    assert numbers(parts["val"]) | numbers(parts["test"]) == numbers(TEST)
    assert f"100 {name} images are divided: 20 choose, 80 judge" in words


@pytest.mark.parametrize("name", ["val", "test"])
def test_without_weights_training_images_choose_and_the_whole_holdout_judges(name: str) -> None:
    parts, words = divided({"train": TRAIN, name: TEST}, given_weights=False, val_share=0.25)
    assert parts["test"] is TEST
    assert (len(parts["train"]), len(parts["val"])) == (150, 50)
    assert numbers(parts["train"]) | numbers(parts["val"]) == numbers(TRAIN)
    assert "50 of the 200 training images are set aside" in words


@pytest.mark.parametrize("given_weights", [True, False])
def test_data_in_one_piece_are_divided_into_eighty_ten_and_ten(given_weights: bool) -> None:
    parts, words = divided({"train": TRAIN}, given_weights=given_weights)
    assert {name: len(split) for name, split in parts.items()} == {"train": 160, "val": 20, "test": 20}
    assert set().union(*map(numbers, parts.values())) == numbers(TRAIN)
    assert ("can look better than it is" in words) == given_weights


def test_with_given_weights_no_training_images_are_needed() -> None:
    parts, _ = divided({"test": TEST}, given_weights=True)
    assert set(parts) == {"val", "test"}


def test_without_weights_training_images_are_needed() -> None:
    with pytest.raises(RecipeError, match=r"imagefolder:x has no images to train on \(only test\).*model\.weights"):
        divided({"test": TEST}, given_weights=False)


def test_a_split_without_images_is_refused() -> None:
    with pytest.raises(RecipeError, match="test holds no images"):
        divided({"train": TRAIN, "test": numbered(0, 0)}, given_weights=True)


@pytest.mark.parametrize(
    ("splits", "given_weights"),
    [
        ({"train": TRAIN, "test": numbered(0, 1)}, True),
        ({"train": numbered(0, 1), "test": TEST}, False),
        ({"train": numbered(0, 2)}, False),
    ],
)
def test_too_few_images_to_divide_are_refused(splits: dict[str, Split], given_weights: bool) -> None:
    with pytest.raises(RecipeError, match="too few to set any aside"):
        divided(splits, given_weights=given_weights)


def test_even_three_images_give_one_to_each_split() -> None:
    parts, _ = divided({"train": numbered(0, 3)}, given_weights=False)
    assert sorted(len(split) for split in parts.values()) == [1, 1, 1]
