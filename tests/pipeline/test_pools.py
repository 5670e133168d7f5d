"""Looking into pools: what is there, what is damaged, and the images as files; nothing is changed by looking."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command import run

from edgepress.stages.datasets.pictures import decode
from edgepress.stages.synthesis.pool import Pool


def pool(folder: Path, *, shards: int = 2) -> Pool:
    """Six images in a shard: three of class 0, two of class 1, one of class 7."""
    made = Pool(folder, shape=(1, 8, 8), teacher="f" * 64, settings={"method": "dafl"})
    labels = torch.tensor([0, 0, 0, 1, 1, 7])
    for number in range(shards):
        images = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(number)).to(torch.uint8)
        made.add(images, labels, confidence=torch.tensor([0.5, 0.7, 0.9, 0.4, 0.6, 0.25]))
    return made


def test_the_pools_of_a_run_are_found_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool(tmp_path / "cache" / "made-images" / "a" / "start-0")
    other = Pool(tmp_path / "stages" / "distill-b" / "pool", shape=(1, 8, 8), teacher="f" * 64)
    other.add(torch.zeros(2, 1, 8, 8), torch.tensor([3, 3]))
    (tmp_path / "stages" / "distill-b" / "manifest.json").write_text("{}")  # of a stage
    code, out, _ = run(capsys, "pool", str(tmp_path), "--json")
    first, second = json.loads(out)
    assert code == 0
    assert (first["images"], first["method"], first["shape"]) == (12, "dafl", [1, 8, 8])
    assert first["classes"]["0"] == {"images": 6, "confidence": pytest.approx(0.7)}
    assert second["classes"] == {"3": {"images": 2, "confidence": None}}
    code, out, _ = run(capsys, "pool", str(tmp_path))
    assert code == 0
    assert "12 images of 1x8x8" in out
    assert "not known" in out


def test_what_is_damaged_is_named_and_left_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool(tmp_path)
    (tmp_path / "shard-000002.safetensors").write_bytes(b"half")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, out, _ = run(capsys, "pool", str(tmp_path))
    assert code == 5
    assert "6 images" in out
    assert "shard-000002.safetensors does not match its checksum" in out
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_images_can_be_had_as_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = pool(tmp_path / "pool")
    code, out, _ = run(capsys, "pool", str(tmp_path / "pool"), "--png", str(tmp_path / "png"))
    assert code == 0
    assert "12 files" in out
    assert {path.name for path in (tmp_path / "png").iterdir()} == {"0", "1", "7"}
    for number in (0, 11):
        (file,) = (tmp_path / "png").rglob(f"{number:06}.png")
        torch.testing.assert_close(torch.tensor(decode(file, None)), made.images()[number], rtol=0, atol=0)


def test_what_cannot_be_told_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "pool", str(tmp_path))
    assert code == 2
    assert "there is no pool of images" in err
    for name in "ab":
        pool(tmp_path / name, shards=1)
    code, _, err = run(capsys, "pool", str(tmp_path), "--png", str(tmp_path / "png"))
    assert code == 2
    assert "--png is for one pool" in err
