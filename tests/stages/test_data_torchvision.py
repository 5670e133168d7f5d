"""Data sets of torchvision are read, by its documented interface; the interface is imitated where it is not here."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepress.stages.data import Data, open_data
from edgepress.stages.settings import DataSettings
from edgepress.targets.errors import RecipeError, RuntimeMissingError
from edgepress.targets.installed import problem


def pixels(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


class CIFAR10:
    """Keeps arrays; is divided by `train`."""

    classes = ("plane", "car")

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        if not (Path(root) / "here").exists() and not download:
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        self.data = pixels(20 if train else 10, 4, 6, 3)
        self.targets = [0, 1] * (len(self.data) // 2)


class Flowers102:
    """Keeps files; is divided by `split`, and knows three of them."""

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        self.count = {"train": 6, "val": 4, "test": 8}[split]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        return Image.fromarray(pixels(8 + place, 9, 3)), place % 2


class SVHN:
    """Keeps arrays with the channels first; has no val."""

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if split not in {"train", "test"}:
            raise ValueError(f"Unknown value '{split}' for argument split.")
        self.data, self.labels = pixels(10, 3, 4, 6), np.arange(10) % 2


class FakeData:
    """Is not divided."""

    def __init__(self, size: int = 10) -> None: ...


class GTSRBLike:
    """Has no split of a usual name."""

    def __init__(self, root: str, split: str = "all") -> None:
        raise ValueError(split)


@pytest.fixture
def imitation(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (CIFAR10, Flowers102, SVHN, FakeData, GTSRBLike)
    datasets = SimpleNamespace(**{kind.__name__: kind for kind in kinds}, __all__=[kind.__name__ for kind in kinds])
    package = SimpleNamespace(datasets=datasets)
    monkeypatch.setattr("edgepress.stages.datasets.zoo.import_for", lambda source, name: package)


def opened(folder: Path, name: str, **settings: Any) -> Data:
    settings = {"source": f"torchvision:{name}", "root": str(folder), **settings}
    return open_data(DataSettings(**settings), seed=0, cache=folder, given_weights=False)


@pytest.mark.usefixtures("imitation")
def test_whole_arrays_are_taken_where_the_set_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    data = opened(tmp_path, "CIFAR10")
    assert (data.shape, data.classes, len(data.test)) == ((3, 4, 6), ("plane", "car"), 10)
    assert np.array_equal(data.test.__getitems__([3])[0][0].numpy(), pixels(10, 4, 6, 3)[3].transpose(2, 0, 1))


@pytest.mark.usefixtures("imitation")
def test_a_set_that_is_divided_by_name_is_read_split_by_split(tmp_path: Path) -> None:
    data = opened(tmp_path, "Flowers102", size=8)
    assert data.train is not None
    assert [len(split) for split in (data.train, data.val, data.test)] == [6, 4, 8]
    assert data.shape == (3, 8, 8)
    assert len(opened(tmp_path, "SVHN").test) == 10


@pytest.mark.usefixtures("imitation")
def test_a_set_is_fetched_only_when_the_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train cannot be read.*not found.*Set data\.download: true"):
        opened(tmp_path, "CIFAR10")
    assert len(opened(tmp_path, "CIFAR10", download=True).test) == 10


@pytest.mark.usefixtures("imitation")
@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("CIFR10", {}, "no data set 'CIFR10'; did you mean 'CIFAR10'"),
        ("FakeData", {}, "is not divided by torchvision.*file.py:function"),
        ("GTSRBLike", {}, "no train and test split of the usual names"),
        ("CIFAR10", {"root": None}, r"needs data\.root"),
        ("Flowers102", {}, "item 0 is 3x8x9 uint8 and item 1 is 3x9x9 uint8.*set data.size"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused(tmp_path: Path, name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        opened(tmp_path, name, **settings)


def test_without_torchvision_the_way_to_get_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepress.stages.imports.problem", lambda module, package: f"{package} is not installed")
    with pytest.raises(RuntimeMissingError, match="torchvision:CIFAR10: torchvision is not installed"):
        opened(tmp_path, "CIFAR10")


def test_the_real_torchvision_names_a_set_that_is_not_there(tmp_path: Path) -> None:
    trouble = problem("torchvision", package="torchvision")
    if trouble:
        pytest.skip(trouble)
    with pytest.raises(RecipeError, match=r"Set data\.download: true"):
        opened(tmp_path, "CIFAR10")
