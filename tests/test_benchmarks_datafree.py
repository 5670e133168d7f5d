"""The benchmarks without data: that each of them runs, goes on where it was, and tells what it should."""

from __future__ import annotations

import importlib
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """They import each other by file name, as scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def module(name: str) -> Any:
    return importlib.import_module(name)


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """The command, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    module(name).main()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten kinds of pictures in MNIST's format: a bright row tells the class."""
    place = tmp_path_factory.mktemp("digits")
    for split, count, seed in (("train", 300, 0), ("t10k", 100, 1)):
        images = np.random.default_rng(seed).integers(0, 60, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6] += 180
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (place / f"{split}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return place


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two colours in folders."""
    from PIL import Image

    place = tmp_path_factory.mktemp("colours")
    for split in ("train", "test"):
        for label in "ab":
            (place / split / label).mkdir(parents=True)
            for number in range(40 if split == "train" else 12):
                shade = 200 if label == "a" else 40 + number
                Image.new("RGB", (32, 32), (shade, 0, 0)).save(place / split / label / f"{number}.png")
    return place


def weights(folder: Path, *names: str) -> list[str]:
    """Options that name files of weights that were not trained."""
    from safetensors.torch import save_file

    nets, words = module("distill_nets"), []
    for name in names:
        torch.manual_seed(0)
        save_file(getattr(nets, name)(2).state_dict(), folder / f"{name}.safetensors")
        words += [f"--{name}", str(folder / f"{name}.safetensors")]
    return words


@pytest.mark.slow
@pytest.mark.device
def test_a_resnet_in_int8_stands_beside_itself_with_data_and_with_other_images(
    colours: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("data", "optimised", "noise", "digits")
    words = ("--data", f"imagefolder:{colours}", *weights(tmp_path, "resnet20"), "--digits", f"mnist:{digits}",
             "--quick", "--json", tmp_path / "out.json", "--only",
             ",".join(f"resnet20-{way}-{kind}" for way in ("ptq", "qat") for kind in kinds))  # fmt: skip
    run("datafree_cifar", monkeypatch, *words)
    first = capsys.readouterr()
    for way in ("ptq", "qat"):
        (row,) = (line for line in first.out.splitlines() if line.startswith(f"| resnet20, {way} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert all(0 <= float(cell) <= 100 for cell in cells[1:6])  # float, and each kind of images
        assert cells[6].endswith("(one seed)")
    run("datafree_cifar", monkeypatch, *words)
    second = capsys.readouterr()
    assert second.err == ""  # nothing was made or trained
    assert second.out.partition("\n|")[2] == first.out.partition("\n|")[2]


@pytest.mark.slow
@pytest.mark.device
def test_a_student_learns_from_images_that_are_made_and_from_real_ones(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data", f"imagefolder:{colours}", *weights(tmp_path, "resnet56"), "--quick",
             "--only", "student-data,student-generated")  # fmt: skip
    run("datafree_cifar", monkeypatch, *words, "--keep", tmp_path / "kept")
    said = capsys.readouterr().out
    assert {line.split(" | ")[0] for line in said.splitlines()} >= {"| student-data", "| student-generated"}
    assert "2 updates of 32 images" in said


def test_a_network_without_weights_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="give the weights of a network"):
        run("datafree_cifar", monkeypatch, "--data", "imagefolder:nowhere")


@pytest.mark.slow
@pytest.mark.device
def test_the_chain_without_data_ends_in_integers_with_half_the_work(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data", f"mnist:{digits}", "--quick", "--json", tmp_path / "out.json")
    run("datafree_chain", monkeypatch, *words)
    first = capsys.readouterr()
    (row,) = (line for line in first.out.splitlines() if line.startswith("| accuracy |"))
    cells = [float(cell) for cell in row.strip("|").split("|")[1:]]
    assert all(0 <= cell <= 100 for cell in cells[:4])
    assert 0 < cells[4] <= 50
    assert "From the student in float to INT8:" in first.out
    run("datafree_chain", monkeypatch, *words)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_speed_of_a_student_without_data_is_told_beside_a_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("datafree_speed", monkeypatch, "--quick", "--pair", "lenet", "--json", tmp_path / "out.json")
    said = capsys.readouterr().out
    shares = [
        int(line.split("|")[3])
        for line in said.splitlines()
        if line.startswith(("| generator |", "| teacher |", "| student |"))
    ]
    assert len(shares) == 3
    assert 98 <= sum(shares) <= 102
    for way in module("datafree_speed").ways(quick=True):
        assert f"| {way.name} |" in said
    assert "channels-first" in said


def test_the_plain_loop_moves_generator_and_student_and_no_teacher(tmp_path: Path) -> None:
    speed = module("datafree_speed")
    loop = speed.Plain(pair=speed.Pair(name="lenet", rounds=1, folder=tmp_path), way=speed.Way(is_ours=False, batch=8))
    before = {
        name: [one.clone() for one in getattr(loop, name).parameters()] for name in ("generator", "student", "teacher")
    }
    loop()
    moved = {
        name: any(not torch.equal(one, then) for one, then in zip(getattr(loop, name).parameters(), old, strict=True))
        for name, old in before.items()
    }
    assert moved == {"generator": True, "student": True, "teacher": False}


def test_a_pair_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("datafree_speed", monkeypatch, "--pair", "lenin")
    assert "there is no lenin; there are lenet, resnet" in capsys.readouterr().err
