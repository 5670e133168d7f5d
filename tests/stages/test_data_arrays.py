"""A user's function hands over arrays or Datasets, and what they mean is told apart or asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgepress.stages.data import Data, open_data, open_memory
from edgepress.stages.datasets.tensors import as_images, as_labels
from edgepress.stages.settings import DataSettings
from edgepress.stages.splits import Split
from edgepress.targets.errors import RecipeError

LABELS = np.arange(12) % 3


def pixels(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def opened(value: Any, *, given_weights: bool = True, **settings: Any) -> Data:
    return open_memory(
        value, DataSettings(source="mine", **settings), seed=0, cache=Path("unused"), given_weights=given_weights
    )


def whole(split: Split) -> torch.Tensor:
    return split.__getitems__(list(range(len(split))))[0]


def pair(images: Any = None, labels: Any = LABELS) -> dict[str, Any]:
    """Train and test of the same."""
    images = pixels(12, 4, 6, 3) if images is None else images
    return {"train": (images, labels), "test": (images, labels)}


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    ("shape", "order"),
    [((5, 4, 6, 3), (0, 3, 1, 2)), ((5, 3, 4, 6), (0, 1, 2, 3)), ((5, 4, 6, 1), (0, 3, 1, 2)), ((5, 1, 4, 6), None)],
)
def test_the_axis_of_size_one_or_three_holds_the_channels(
    convert: Callable[[Any], Any], shape: tuple[int, ...], order: tuple[int, ...] | None
) -> None:
    given = pixels(*shape)
    wanted = given if order is None else given.transpose(order)
    assert np.array_equal(as_images(convert(given), where="x").numpy(), wanted)


def test_three_axes_are_grey_images() -> None:
    assert as_images(pixels(5, 4, 6), where="x").shape == (5, 1, 4, 6)


def test_where_the_shape_says_nothing_each_library_s_own_order_holds() -> None:
    both = pixels(5, 3, 8, 3)
    assert as_images(both, where="x").shape == (5, 3, 3, 8)
    assert as_images(torch.from_numpy(both), where="x").shape == (5, 3, 8, 3)
    assert as_images(torch.from_numpy(pixels(5, 4, 8, 8)), where="x").shape == (5, 4, 8, 8)
    with pytest.raises(RecipeError, match=r"no axis is 1 or 3 long.*Give a torch tensor"):
        as_images(pixels(5, 4, 8, 8), where="x")


def test_floating_point_images_stay_as_they_are() -> None:
    units = as_images(np.full((2, 4, 4), 0.25), where="x")
    assert units.dtype == torch.float32
    assert (units == 0.25).all()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.full((2, 4, 4), 200.0), "0 to 1 and these are 200 to 200.*give 0 to 255 as uint8"),
        (np.full((2, 4, 4), -0.5), r"these are -0\.5"),
        (np.full((2, 4, 4), np.nan), "these are nan"),
        (np.zeros((2, 4, 4), np.int64), r"images are torch\.int64; wanted uint8"),
        (np.zeros((2, 4), np.uint8), r"shape \(2, 4\); wanted \[N, H, W\]"),
        ([object()], "list cannot be read as an array"),
        (np.array(["a"]), "cannot be read as an array"),
    ],
)
def test_images_that_mean_nothing_are_refused(value: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=f"^here: .*{words}"):
        as_images(value, where="here")


def test_an_array_that_runs_backwards_is_read() -> None:
    given = pixels(5, 4, 6)[:, ::-1]
    assert np.array_equal(as_images(given, where="x")[:, 0].numpy(), given)


@pytest.mark.parametrize("value", [[0, 2, 1], np.array([[0], [2], [1]], np.uint8), torch.tensor([0, 2, 1])])
def test_labels_of_any_whole_type_are_read(value: Any) -> None:
    labels = as_labels(value, count=3, where="x")
    assert (labels.dtype, labels.tolist()) == (torch.int64, [0, 2, 1])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.eye(3, dtype=np.int64), r"labels have shape \(3, 3\).*argmax\(1\)"),
        (np.zeros((3, 1, 1), np.int64), r"labels have shape \(3, 1, 1\); wanted one class index each\.$"),
        (np.zeros(3), r"labels are torch\.float64; wanted class indices"),
        (np.zeros(4, np.int64), "3 images and 4 labels"),
        (np.array([0, -1, 2]), "a label is -1; class indices start at 0"),
    ],
)
def test_labels_that_mean_nothing_are_refused(value: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        as_labels(value, count=3, where="x")


def test_arrays_become_splits() -> None:
    data = opened({**pair(), "classes": ("red", "green", "blue")})
    assert data.train is not None
    assert data.classes == ("red", "green", "blue")
    assert data.shape == (3, 4, 6)
    assert np.array_equal(whole(data.train).numpy(), pixels(12, 4, 6, 3).transpose(0, 3, 1, 2))
    assert (len(data.val), len(data.test)) == (2, 10)


def test_val_and_test_of_the_function_are_used() -> None:
    data = opened({**pair(), "val": (pixels(3, 4, 6, 3), [0, 1, 2])})
    assert (len(data.val), len(data.test)) == (3, 12)
    assert data.classes == ("0", "1", "2")


def test_arrays_are_resized_as_pictures_are() -> None:
    picture = Image.fromarray(pixels(40, 60, 3))
    data = opened(pair(np.stack([np.asarray(picture)] * 12)), size=(10, 10))
    assert data.shape == (3, 10, 10)
    wanted = np.asarray(picture.resize((15, 10), Image.Resampling.BILINEAR))[:, 2:12].transpose(2, 0, 1)
    assert np.abs(whole(data.test)[0].numpy().astype(int) - wanted).max() <= 1


def test_a_limit_keeps_the_classes_balanced() -> None:
    data = opened({**pair(), "val": (pixels(12, 4, 6, 3), LABELS)}, limit=6)
    assert data.train is not None
    assert data.train.labels().bincount().tolist() == [2, 2, 2]


class Items:
    """A torch Dataset of (image, label), as far as it has to be one."""

    def __init__(self, make: Callable[[int], Any], count: int = 12) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Any:
        return self.make(place)


@pytest.mark.parametrize(
    "image",
    [
        lambda place: Image.fromarray(pixels(4, 6, 3, seed=place)),
        lambda place: pixels(4, 6, 3, seed=place),
        lambda place: torch.from_numpy(pixels(4, 6, 3, seed=place)).permute(2, 0, 1),
    ],
    ids=["picture", "array", "tensor"],
)
def test_a_dataset_of_pictures_arrays_or_tensors_is_read(image: Callable[[int], Any]) -> None:
    data = opened({name: Items(lambda place: (image(place), np.int64(place % 3))) for name in ("train", "test")})
    assert data.train is not None
    assert np.array_equal(whole(data.train)[7].numpy(), pixels(4, 6, 3, seed=7).transpose(2, 0, 1))
    assert data.train.labels().tolist() == LABELS.tolist()


def test_a_dataset_of_pictures_of_any_size_is_resized() -> None:
    items = Items(lambda place: (Image.fromarray(pixels(4 + place, 6, 3)).convert("CMYK"), place % 3))
    assert opened({"train": items, "test": items}, size=4).shape == (3, 4, 4)


COUNTER = iter(range(10_000))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: (pixels(4 + place // 9, 6), 0), r"item 0 is 1x4x6 uint8 and item 9 is 1x5x6 uint8.*data\.size"),
        (lambda place: (pixels(4, 6, seed=next(COUNTER)), 0), "item 0 is another image when it is read again"),
        (lambda place: pixels(4, 6), "item 0 is of type ndarray; wanted "),
        (lambda place: (pixels(4, 6), "cat"), "the label of item 0 is 'cat'; wanted a class index"),
        (lambda place: (np.full((4, 6), -1.0), 0), "item 0: floating point images must be 0 to 1"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_refused(make: Callable[[int], Any], words: str) -> None:
    with pytest.raises(RecipeError, match=f"data, train.*{words}"):
        opened({"train": Items(make), "test": Items(make)})


def test_a_dataset_too_large_for_memory_is_refused_before_it_is_read() -> None:
    def make(place: int) -> Any:
        assert place == 0
        return pixels(512, 512, 3), 0

    with pytest.raises(RecipeError, match=r"73\.2 GiB of images.*imagefolder:PATH"):
        opened({"train": Items(make, count=100_000), "test": Items(make)})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2], "data returned a value of type list; wanted a mapping"),
        ({}, "data returned no images"),
        ({"trian": 1}, "a key 'trian'; did you mean 'train'"),
        ({"train": 3}, "data, train is of type int; wanted a pair"),
        ({"train": {"images": 1}}, "data, train is of type dict"),
        ({**pair(), "test": (pixels(12, 5, 6, 3), LABELS)}, "splits' images differ.*train 3x4x6, test 3x5x6"),
        ({**pair(), "classes": ("a", "b")}, "a label is 2, and there are names for 2 classes"),
        (pair(labels=np.zeros(12, np.int64)), "needs at least 2 classes; here: 0"),
        ({**pair(), "test": (pixels(0, 4, 6, 3), [])}, "mine: test holds no images"),
        ({**pair(), "test": Items(lambda place: None, count=0)}, "test holds no images"),
    ],
)
def test_what_a_function_returns_in_vain_is_told(value: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        opened(value)


def test_a_function_in_a_file_is_called(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\ndef load():\n"
        "    images = np.zeros((8, 4, 4), np.uint8)\n"
        "    return {'train': (images, np.arange(8) % 2), 'test': (images, np.arange(8) % 2)}\n"
    )
    data = open_data(DataSettings(source=f"{path}:load"), seed=0, cache=tmp_path, given_weights=False)
    assert (data.shape, len(data.test)) == ((1, 4, 4), 8)
    path.write_text("def load():\n    raise OSError('disk on fire')\n")
    with pytest.raises(RecipeError, match=r"mine\.py:2: OSError: disk on fire"):
        open_data(DataSettings(source=f"{path}:load"), seed=0, cache=tmp_path, given_weights=False)
