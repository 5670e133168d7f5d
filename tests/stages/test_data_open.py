"""What a recipe says about data is followed, or its mistake is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepress.stages.data import Data, open_data, open_memory
from edgepress.stages.settings import DataSettings
from edgepress.targets.errors import RecipeError


def digits(tmp_path: Path, *, seed: int = 0, **settings: Any) -> Data:
    return open_data(
        DataSettings(source="builtin:digits", **settings), seed=seed, cache=tmp_path / "cache", given_weights=False
    )


def test_the_built_in_digits_come_with_their_own_moments_and_write_nothing(tmp_path: Path) -> None:
    data = digits(tmp_path, augment=("crop",))
    assert (data.shape, data.classes) == ((1, 8, 8), tuple("0123456789"))
    assert (data.preprocessing.mean, data.preprocessing.std) == ((0.305,), (0.376,))
    assert data.augment == ("crop",)
    assert any("0.305" in note for note in data.notes)
    assert not list(tmp_path.iterdir())


def test_figures_of_two_seeds_are_on_the_same_digits(tmp_path: Path) -> None:
    assert digits(tmp_path, seed=0).fingerprint == digits(tmp_path, seed=1).fingerprint


def test_moments_of_the_recipe_are_used_and_not_noted(tmp_path: Path) -> None:
    data = digits(tmp_path, mean=(0.1,), std=(0.2,))
    assert (data.preprocessing.mean, data.preprocessing.std) == ((0.1,), (0.2,))
    assert not any("normalised" in note for note in data.notes)
    assert data.fingerprint != digits(tmp_path).fingerprint


def test_a_limit_holds_for_every_split(tmp_path: Path) -> None:
    data = digits(tmp_path, limit=100)
    assert data.train is not None
    assert [len(split) for split in (data.train, data.val, data.test)] == [100, 100, 100]
    assert data.train.labels().bincount().tolist() == [10] * 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mean": (0.1, 0.2)}, r"data\.mean has 2 values and the images have 1 channels"),
        ({"std": (1.0, 1.0, 1.0)}, r"data\.std has 3 values"),
        ({"std": (0.0,)}, r"data\.std is \[0\.0\]: pixels are divided by it"),
    ],
)
def test_moments_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        digits(tmp_path, **settings)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("builtin:digts", "no built-in data 'digts'; did you mean 'digits'"),
        ("imagefoldr:x", "of no known kind; did you mean 'imagefolder'.*Write imagefolder:PATH"),
        ("some/folder", "'some/folder' is of no known kind. Write imagefolder:PATH"),
        ("imagefolder:", "names nothing after the colon"),
        ("gone.py:data", r"there is no file gone\.py"),
    ],
)
def test_an_unknown_source_is_refused(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        open_data(DataSettings(source=source), seed=0, cache=tmp_path, given_weights=False)


def in_memory(*, seed: int, first: int = 0) -> Data:
    images = np.arange(first, first + 40, dtype=np.uint8).repeat(16).reshape(40, 4, 4)
    pair = (images, np.arange(40) // 20)  # divided in any way, the labels stay in this order
    settings = DataSettings(source="memory")
    return open_memory({"train": pair, "test": pair}, settings, seed=seed, cache=Path("unused"), given_weights=True)


def test_the_division_and_its_fingerprint_depend_on_the_seed_and_the_pixels_alone() -> None:
    one, same, other, moved = in_memory(seed=0), in_memory(seed=0), in_memory(seed=1), in_memory(seed=0, first=1)
    assert one.val.rows.tolist() == same.val.rows.tolist() != other.val.rows.tolist()
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, other.fingerprint, moved.fingerprint}) == 3


def test_grey_images_without_usual_moments_are_centred_on_one_half() -> None:
    assert in_memory(seed=0).preprocessing.mean == in_memory(seed=0).preprocessing.std == (0.5,)
