"""A pool of images keeps what it was given, says whose it is, and is after a crash as it was before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgepress.stages.datasets.pictures import decode
from edgepress.stages.synthesis.pool import Pool
from edgepress.stages.synthesis.sheet import write_pngs
from edgepress.targets.errors import RecipeError, StageError

SHAPE = (3, 8, 8)
BYTES = 3 * 8 * 8
TEACHER = "0123456789abcdef"


def opened(folder: Path, *, limit: int | None = None, notes: list[str] | None = None) -> Pool:
    """limit: in images."""
    note = [].append if notes is None else notes.append
    limit_mb = None if limit is None else limit * BYTES / 1e6
    return Pool(folder, shape=SHAPE, teacher=TEACHER, limit_mb=limit_mb, settings={"method": "dafl"}, note=note)


def some(count: int, seed: int = 0) -> Tensor:
    made = torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(seed))
    return made.to(torch.uint8)


def classes(count: int) -> Tensor:
    return torch.arange(count) % 4


def filled(folder: Path, *, shards: int = 3, limit: int | None = None, notes: list[str] | None = None) -> Pool:
    pool = opened(folder, limit=limit, notes=notes)
    for number in range(shards):
        pool.add(some(5, number), classes(5), note={"number": number})
    return pool


def shards_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("shard-*"))


def test_images_labels_and_confidence_come_back_as_they_were(tmp_path: Path) -> None:
    pool = opened(tmp_path)
    sure = torch.linspace(0, 1, 6)
    pool.add(some(6), classes(6), confidence=sure, note={"cost": 0.5})
    pool.add(some(2, seed=1), classes(2))
    again = opened(tmp_path)
    assert len(again) == 8
    torch.testing.assert_close(again.images(), torch.cat([some(6), some(2, seed=1)]), rtol=0, atol=0)
    torch.testing.assert_close(again.labels(), torch.cat([classes(6), classes(2)]))
    torch.testing.assert_close(again.confidence()[:6], sure)
    assert bool(again.confidence()[6:].isnan().all())
    assert again.manifest.shards[0].note == {"cost": 0.5}
    assert again.settings == {"method": "dafl"}
    assert again.fingerprint == pool.fingerprint


def test_floats_from_0_to_1_are_kept_to_half_a_step(tmp_path: Path) -> None:
    pool = opened(tmp_path)
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    pool.add(images, classes(4))
    assert pool.images().dtype == torch.uint8
    assert float((pool.images().float() / 255 - images).abs().max()) <= 0.5 / 255 + 1e-6


def test_what_is_no_number_or_of_another_shape_never_enters(tmp_path: Path) -> None:
    pool = opened(tmp_path)
    with pytest.raises(StageError, match="no numbers: lower the learning rate"):
        pool.add(torch.full((2, *SHAPE), torch.nan), classes(2))
    with pytest.raises(StageError, match="holds images of 3x8x8, not of 1x8x8"):
        pool.add(torch.zeros(2, 1, 8, 8), classes(2))
    assert len(pool) == len(opened(tmp_path)) == 0


def test_a_new_pool_is_empty_and_an_empty_batch_adds_nothing(tmp_path: Path) -> None:
    pool = opened(tmp_path / "made" / "on demand")
    pool.add(some(0), classes(0))
    assert len(pool) == len(pool.images()) == len(pool.labels()) == len(pool.confidence()) == 0
    assert pool.images().shape == (0, *SHAPE)


def test_the_split_counts_as_unlabelled(tmp_path: Path) -> None:
    split = filled(tmp_path).split()
    assert not split.is_labelled
    assert (len(split), split.shape) == (15, SHAPE)
    torch.testing.assert_close(split.read(torch.tensor([14])), some(5, 2)[4:], rtol=0, atol=0)


def test_a_full_pool_drops_its_oldest_images_and_says_so_once(tmp_path: Path) -> None:
    notes: list[str] = []
    pool = filled(tmp_path, shards=4, limit=10, notes=notes)
    torch.testing.assert_close(pool.images(), torch.cat([some(5, 2), some(5, 3)]), rtol=0, atol=0)
    assert len(notes) == 1
    assert "is full" in notes[0]
    assert len(shards_of(tmp_path)) == 2


def test_a_shard_larger_than_the_pool_leaves_its_newest_images(tmp_path: Path) -> None:
    pool = opened(tmp_path, limit=3)
    pool.add(some(8), classes(8))
    torch.testing.assert_close(pool.images(), some(8)[5:], rtol=0, atol=0)
    tiny = Pool(tmp_path / "tiny", shape=SHAPE, teacher=TEACHER, limit_mb=0)
    tiny.add(some(8), classes(8))
    assert len(tiny) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "ffff"}, r"made from another network \(fingerprint 0123456789ab, this one has ffff\)"),
        ({"shape": (1, 8, 8)}, r"holds images of 3x8x8 .* the network takes 1x8x8"),
    ],
)
def test_the_pool_of_another_network_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    filled(tmp_path)
    with pytest.raises(RecipeError, match=message):
        Pool(tmp_path, **({"shape": SHAPE, "teacher": TEACHER} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["changed", "cut off", "removed"])
def test_a_damaged_shard_is_named_set_aside_and_not_used(tmp_path: Path, damage: str) -> None:
    filled(tmp_path)
    path = tmp_path / "shard-000002.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "removed":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes(content if damage == "changed" else content[:-100])
    with pytest.raises(RecipeError, match=r"is damaged: shard-000002\.safetensors .*10 images are whole"):
        opened(tmp_path)
    assert (tmp_path / "shard-000002.safetensors.corrupt").exists() == (damage != "removed")
    rest = opened(tmp_path)
    torch.testing.assert_close(rest.images(), torch.cat([some(5, 0), some(5, 2)]), rtol=0, atol=0)
    rest.add(some(5, 7), classes(5))
    torch.testing.assert_close(opened(tmp_path).images()[-5:], some(5, 7), rtol=0, atol=0)


def test_shards_without_a_manifest_are_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(RecipeError, match=r"has shards and no manifest\.json"):
        opened(tmp_path)
    with pytest.raises(RecipeError, match="there is no pool in"):
        Pool.opened(tmp_path / "nowhere", teacher=TEACHER)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 1', "cannot be read"),
        ("[]", "cannot be read"),
        ('{"schema": 9}', "of version 9; this program reads 1"),
        ('{"schema": 1, "teacher": "x"}', "KeyError"),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RecipeError, match=message):
        opened(tmp_path)


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    filled(tmp_path / "pool")
    path = tmp_path / "pool" / "manifest.json"
    facts = json.loads(path.read_text())
    facts["shards"][0]["name"] = "../secret"
    path.write_text(json.dumps(facts))
    with pytest.raises(RecipeError, match="is no name of a file"):
        opened(tmp_path / "pool")


def test_a_pool_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="a pool is a folder"):
        opened(tmp_path / "file")


def test_it_can_be_opened_without_knowing_its_shape(tmp_path: Path) -> None:
    filled(tmp_path)
    assert Pool.opened(tmp_path, teacher=TEACHER).shape == SHAPE


def test_a_kill_while_a_shard_is_written_leaves_the_pool_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    pool = opened(tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", killed)  # the shard is there in part, under another name
        with pytest.raises(KeyboardInterrupt):
            pool.add(some(5, 9), classes(5))
    with monkeypatch.context() as patch:
        patch.setattr("edgepress.stages.synthesis.manifest.Manifest.write", killed)  # all of it, and nobody knows it
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path).add(some(5, 9), classes(5))
    again = opened(tmp_path)
    torch.testing.assert_close(again.images(), torch.cat([some(5, seed) for seed in range(3)]), rtol=0, atol=0)
    again.add(some(5, 4), classes(5))
    torch.testing.assert_close(opened(tmp_path).images()[15:], some(5, 4), rtol=0, atol=0)


def test_shards_newer_than_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    pool = filled(tmp_path)
    state, before = json.loads(json.dumps(pool.state_dict())), pool.fingerprint
    pool.add(some(5, 8), classes(5))
    again = opened(tmp_path)
    assert len(again) == 20
    again.load_state_dict(state)
    assert (again.fingerprint, len(again)) == (before, 15)
    assert len(shards_of(tmp_path)) == 3
    assert len(opened(tmp_path)) == 15


def test_a_full_pool_is_at_the_checkpoint_what_it_was_though_its_oldest_images_went_since(tmp_path: Path) -> None:
    pool = filled(tmp_path, limit=15)
    state, before = pool.state_dict(), pool.fingerprint
    pool.add(some(5, 8), classes(5))
    assert pool.fingerprint != before
    again = opened(tmp_path, limit=15)
    again.load_state_dict(state)
    assert again.fingerprint == before
    torch.testing.assert_close(again.images()[:5], some(5, 0), rtol=0, atol=0)


def test_what_no_checkpoint_can_ask_for_is_deleted(tmp_path: Path) -> None:
    pool = filled(tmp_path, limit=15)
    pool.state_dict()
    for seed in range(3):
        pool.add(some(5, 10 + seed), classes(5))
    assert len(shards_of(tmp_path)) == 6  # the three of the checkpoint and the three of now
    pool.state_dict()
    assert len(shards_of(tmp_path)) == 6  # the checkpoint before this one is on disk until this one is
    pool.state_dict()
    assert len(shards_of(tmp_path)) == 3


def test_a_checkpoint_whose_shard_is_damaged_goes_on_without_it_and_says_so(tmp_path: Path) -> None:
    pool = filled(tmp_path, limit=15)
    state = pool.state_dict()
    pool.add(some(5, 8), classes(5))
    (tmp_path / "shard-000001.safetensors").unlink()
    notes: list[str] = []
    again = opened(tmp_path, limit=15, notes=notes)
    again.load_state_dict(state)
    torch.testing.assert_close(again.images(), torch.cat([some(5, 1), some(5, 2)]), rtol=0, atol=0)
    assert "shard-000001.safetensors is not there" in notes[0]


def test_another_attempt_begins_with_nothing(tmp_path: Path) -> None:
    pool = filled(tmp_path)
    pool.forget()
    assert len(pool) == len(opened(tmp_path)) == 0
    assert shards_of(tmp_path) == []
    pool.add(some(5, 4), classes(5))
    torch.testing.assert_close(opened(tmp_path).images(), some(5, 4), rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_in_files_are_the_images_by_class(tmp_path: Path, channels: int) -> None:
    images = some(6)[:, :channels]
    assert write_pngs(images[:4], classes(6)[:4].tolist(), tmp_path / "png") == 4
    assert write_pngs(images[4:], classes(6)[4:].tolist(), tmp_path / "png", first=4) == 6
    assert {path.name for path in (tmp_path / "png").iterdir()} == {"0", "1", "2", "3"}
    found = torch.tensor(decode(tmp_path / "png" / "1" / "000005.png", None))
    torch.testing.assert_close(found, images[5], rtol=0, atol=0)
