"""A folder of images becomes splits; whatever is wrong with it is told, whatever was left out is noted."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgepress.stages.data import Data, open_data, open_judging
from edgepress.stages.settings import DataSettings
from edgepress.stages.splits import Split, loader
from edgepress.targets.errors import RecipeError, StageError


def picture(number: int, *, mode: str = "RGB", size: tuple[int, int] = (6, 8)) -> Image.Image:
    """Filled with its number and a gradient; size: (height, width)."""
    shape = size if mode == "L" else (*size, 3)
    pixels = np.random.default_rng(number).integers(0, 200, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def fill(folder: Path, count: int, *, first: int = 0, ending: str = "png", **how: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(number, **how).save(folder / f"{number:04}.{ending}")
    return folder


def tree(root: Path, **counts: int) -> Path:
    """root/SPLIT/{cat,dog}/*.png with that many images for each class."""
    for place, (split, count) in enumerate(counts.items()):
        for label, name in enumerate(("cat", "dog")):
            fill(root / split / name, count, first=10_000 * place + 1000 * label)
    return root


def opened(root: Path, *, given_weights: bool = True, cache: Path | None = None, **settings: Any) -> Data:
    return open_data(
        DataSettings(source=f"imagefolder:{root}", **settings),
        seed=0,
        cache=cache or root.parent / "cache",
        given_weights=given_weights,
    )


def images(split: Split) -> torch.Tensor:
    return split.__getitems__(list(range(len(split))))[0]


def refused(root: Path, match: str, **settings: Any) -> None:
    with pytest.raises(RecipeError, match=match):
        opened(root, **settings)


def test_pixels_labels_and_classes_are_those_of_the_files(tmp_path: Path) -> None:
    data = opened(tree(tmp_path / "set", train=3, val=2, test=2))
    assert data.train is not None
    assert data.classes == ("cat", "dog")
    assert data.shape == (3, 6, 8)
    assert data.train.labels().tolist() == [0, 0, 0, 1, 1, 1]
    wanted = np.asarray(picture(1002)).transpose(2, 0, 1)
    assert np.array_equal(images(data.train)[5].numpy(), wanted)
    assert (data.preprocessing.size, data.preprocessing.mean) == ((6, 8), (0.485, 0.456, 0.406))
    assert any("mean (0.485, 0.456, 0.406)" in note for note in data.notes)


def test_a_split_folder_may_have_another_usual_name(tmp_path: Path) -> None:
    data = opened(tree(tmp_path / "set", train=2, validation=3, test=2))
    assert len(data.val) == 6


def test_class_folders_alone_are_divided(tmp_path: Path) -> None:
    root = tmp_path / "set"
    fill(root / "a", 20)
    fill(root / "b", 20, first=100)
    data = opened(root, given_weights=False)
    assert data.train is not None
    assert (len(data.train), len(data.val), len(data.test)) == (32, 4, 4)


def test_images_may_lie_deeper_and_end_in_capitals(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=2, test=2)
    fill(root / "train" / "cat" / "more" / "deep", 1, first=50, ending="PNG")
    data = opened(root)
    assert data.train is not None
    assert data.train.labels().bincount().tolist() == [3, 2]


def test_grey_images_have_one_channel_unless_one_image_is_coloured(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "test"):
        for first, name in ((0, "cat"), (10, "dog")):
            fill(root / split / name, 3, first=first, mode="L")
    grey = opened(root)
    assert grey.shape == (1, 6, 8)
    assert grey.preprocessing.mean == (0.5,)
    assert grey.train is not None
    fill(root / "test" / "dog", 1, first=99)
    coloured = opened(root)
    assert coloured.train is not None
    assert coloured.shape == coloured.train.shape == (3, 6, 8)
    assert torch.equal(images(coloured.train), images(grey.train).expand(-1, 3, -1, -1))


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "CMYK"])
def test_every_usual_kind_of_picture_can_be_read(tmp_path: Path, mode: str) -> None:
    root = tree(tmp_path / "set", train=2, test=2)
    ending = "tif" if mode == "CMYK" else "png"
    picture(1).convert(mode).save(root / "train" / "cat" / f"special.{ending}")
    data = opened(root)
    assert data.train is not None
    assert len(data.train) == 5


def test_pictures_of_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    root = tmp_path / "set"
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            fill(root / split / name, 2, mode="L")
            Image.fromarray(values).save(root / split / name / "deep.png")
    data = opened(root)
    assert data.train is not None
    assert np.array_equal(images(data.train)[2, 0].numpy(), (values >> 8).astype(np.uint8))


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=2, test=2)
    picture(1).convert("P").save(root / "train" / "cat" / "clear.png", transparency=bytes(range(256)))
    assert opened(root).shape == (3, 6, 8)


def test_images_are_resized_by_their_shorter_side_and_cut_in_the_middle(tmp_path: Path) -> None:
    root = tmp_path / "set"
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 200  # the middle square
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                Image.fromarray(wide).save(root / split / name / f"{number}.png")
            Image.fromarray(np.full((5, 5, 3), 200, np.uint8)).save(root / split / name / "small.png")
    data = opened(root, size=5)
    assert data.shape == (3, 5, 5)
    assert (images(data.test)[:, :, :, 1:4] == 200).all()
    assert opened(root, size=(4, 6)).shape == (3, 4, 6)


def test_images_of_two_sizes_are_refused_and_two_of_them_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=2, test=2)
    fill(root / "train" / "dog", 1, first=77, size=(9, 8))
    refused(root, r"cat/0000\.png is 6x8 and dog/0077\.png is 9x8 .*Set data\.size.*\[6, 8\]")


def test_splits_of_two_sizes_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=2)
    for name in ("cat", "dog"):
        fill(root / "test" / name, 2, size=(5, 5))
    refused(root, r"splits' images differ.*train 3x6x8, test 3x5x5.*Set data\.size")


def spoil(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"spoilt{number}.jpg").write_bytes(b"not a picture")


def test_a_few_broken_images_are_skipped_and_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=100, test=2)
    spoil(root / "train" / "dog", 1)
    whole = root / "train" / "cat" / "0000.png"
    whole.write_bytes(whole.read_bytes()[:-40])  # cut off: opens, and cannot be decoded
    data = opened(root)
    assert data.train is not None
    assert data.train.labels().bincount().tolist() == [99, 100]
    note = next(note for note in data.notes if "cannot be read" in note)
    assert note.startswith("2 of 201 train images cannot be read and were skipped: cat/0000.png (")
    assert note.endswith("; dog/spoilt0.jpg (it is no picture)")


def test_one_broken_image_in_a_hundred_is_too_many(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=50, test=2)
    spoil(root / "train" / "dog", 7)
    refused(root, r"train: 7 of 107 images cannot be read.*dog/spoilt0\.jpg \(it is no picture\).*and 2 more")


def test_other_files_are_ignored_and_counted(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=2, test=2)
    for place in (root / "train" / "cat" / "notes.txt", root / "test" / "dog" / "Thumbs.db", root / "README"):
        place.write_text("x")
    (root / "train" / "cat" / ".DS_Store").touch()
    assert "2 files in the class folders do not end like images and were ignored" in opened(root).notes


def test_a_limit_keeps_the_classes_balanced(tmp_path: Path) -> None:
    data = opened(tree(tmp_path / "set", train=10, val=4, test=6), limit=4)
    assert data.train is not None
    assert [split.labels().bincount().tolist() for split in (data.train, data.val, data.test)] == [[2, 2]] * 3


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "gone", rf"there is no folder {tmp_path}/gone")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").touch()
    refused(tmp_path / "set", "is a file; wanted a folder")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    refused(tmp_path / "set", r"holds nothing\. Wanted is one folder for each class.*cat/001\.jpg")


def test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    refused(fill(tmp_path / "set", 3), "holds 3 files and no folders")


def test_class_folders_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    refused(tmp_path / "set", "holds 0 files and 1 folders, none of them with images")


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "set" / "cat", 5)
    refused(tmp_path / "set", "needs at least 2 classes; here: cat")


def test_a_class_that_one_split_lacks_is_named_with_both_sides(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=2, test=2)
    fill(root / "train" / "emu", 2)
    fill(root / "test" / "fox", 2)
    refused(root, r"train has 1 that test lacks \(emu\).*test has 1 that train lacks \(fox\)|"
                  r"test has 1 that train lacks \(fox\).*train has 1 that test lacks \(emu\)")  # fmt: skip


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    refused(tree(tmp_path / "set", train=2, val=2, valid=2), "are both val; keep one")


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "set", train=2, test=2)

    def deny(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", deny)
    refused(root, rf"{root} cannot be read: Permission denied")


class Counted:
    """Progress that counts."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def update(self, share: float, text: str) -> None:
        assert text.startswith("decoding images")
        self.shares.append(share)


def with_progress(root: Path, cache: Path) -> tuple[Data, list[float]]:
    progress = Counted()
    settings = DataSettings(source=f"imagefolder:{root}")
    return open_data(settings, seed=0, cache=cache, given_weights=True, progress=progress), progress.shares


def test_images_are_decoded_once_and_then_come_from_the_cache(tmp_path: Path) -> None:
    root, cache = tree(tmp_path / "set", train=4, test=4), tmp_path / "cache"
    first, shares = with_progress(root, cache)
    assert shares[-1] == 1.0
    again, nothing = with_progress(root, cache)
    assert nothing == []
    assert torch.equal(images(again.test), images(first.test))
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", [lambda raw: raw[:-5], lambda raw: raw[:-5] + b"wrong", lambda raw: b""])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: Any) -> None:
    root, cache = tree(tmp_path / "set", train=4, test=4), tmp_path / "cache"
    first, _ = with_progress(root, cache)
    for file in cache.iterdir():
        file.write_bytes(damage(file.read_bytes()))
    again, shares = with_progress(root, cache)
    assert shares
    assert torch.equal(images(again.test), images(first.test))
    assert with_progress(root, cache)[1] == []


def test_a_changed_image_is_noticed_and_a_touched_one_changes_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=4, test=4)
    first = opened(root)
    file = root / "train" / "cat" / "0000.png"
    os.utime(file, (1, 1))
    assert opened(root).fingerprint == first.fingerprint
    picture(12345).save(file)
    assert opened(root).fingerprint != first.fingerprint


def test_a_fingerprint_depends_on_pixels_division_and_settings_but_not_on_the_place(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one", train=4, test=10), tree(tmp_path / "two", train=4, test=10)
    first = opened(one).fingerprint
    assert opened(two).fingerprint == first
    others = [
        opened(one, given_weights=False).fingerprint,
        opened(one, mean=(0.4, 0.4, 0.4)).fingerprint,
        opened(one, std=(0.4, 0.4, 0.4)).fingerprint,
        opened(one, augment=("flip",)).fingerprint,
        opened(one, size=5).fingerprint,
        opened(one, limit=6).fingerprint,
    ]
    (one / "train" / "cat").rename(one / "train" / "cow")
    (one / "test" / "cat").rename(one / "test" / "cow")
    others.append(opened(one).fingerprint)
    assert len({first, *others}) == 8


def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepress.stages.datasets.imagefolder.MEMORY_LIMIT_BYTES", 100)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_a_set_that_does_not_fit_into_memory_is_decoded_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "set", train=6, test=6)
    kept = opened(root)
    unpacked(monkeypatch)
    read = opened(root)
    assert kept.train is not None
    assert read.train is not None
    assert not read.train.pixels.is_in_memory
    assert torch.equal(images(read.train), images(kept.train))
    assert read.fingerprint == kept.fingerprint
    assert any("decoded again in every epoch" in note for note in read.notes)
    monkeypatch.setattr("edgepress.stages.splits._workers", lambda: 2)
    batches = [
        list(loader(data.train, batch_size=4, shuffle=True, seed=1, epoch=1)) for data in (read, kept) if data.train
    ]
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_cache_made_without_pixels_is_not_taken_for_one_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "set", train=3, test=3)
    with monkeypatch.context() as small:
        unpacked(small)
        assert not opened(root).test.pixels.is_in_memory
    assert opened(root).test.pixels.is_in_memory


def test_grey_images_on_disk_are_widened_where_another_split_is_coloured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "set", test=3)
    for first, name in ((0, "cat"), (10, "dog")):
        fill(root / "train" / name, 3, first=first, mode="L")
    kept = opened(root)
    unpacked(monkeypatch)
    read = opened(root)
    assert kept.train is not None
    assert read.train is not None
    assert torch.equal(images(read.train), images(kept.train))


def test_an_image_that_breaks_during_the_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "set", train=6, test=6)
    unpacked(monkeypatch)
    data = opened(root)
    assert data.train is not None
    (root / "train" / "cat" / "0000.png").write_bytes(b"gone bad")
    with pytest.raises(StageError, match=r"cat/0000\.png could be read when the run began"):
        images(data.train)


def test_of_a_folder_that_only_judges_no_training_image_is_opened(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", train=3, test=2)
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"no image at all")
    settings = DataSettings(source="generated", eval=f"imagefolder:{root}", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    data = open_judging(settings, seed=0, cache=tmp_path / "cache")
    assert len(data.test) == 4
    assert not any("cannot be read" in note for note in data.notes)
    refused(root, "6 of 6 images cannot be read")


def test_a_folder_without_test_images_judges_by_those_for_validation_or_by_all(tmp_path: Path) -> None:
    both, one = tree(tmp_path / "both", train=3, val=2), tree(tmp_path / "one", train=3)
    for root, count in ((both, 4), (one, 6)):
        settings = DataSettings(
            source="generated", eval=f"imagefolder:{root}", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
        )
        assert len(open_judging(settings, seed=0, cache=tmp_path / "cache").test) == count
