"""Kept answers: the same as computed ones, never another teacher's, and whole or not there at all."""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import context, data, net
from torch import Tensor, nn

from edgepress.stages.artifact import Context
from edgepress.stages.distill.cache import Cached, Shelf, keep_answers
from edgepress.stages.distill.nouns import Batch, Lasting, Out
from edgepress.stages.distill.sources import Frozen, Snapshot
from edgepress.stages.lesson import Lesson
from edgepress.stages.progress import Quiet
from edgepress.stages.teaching import teach
from edgepress.stages.tensors import load_state

SAMPLES = Lasting(fingerprint="pictures", count=12)
X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


class Counted(nn.Module):
    """A small network that counts the samples that it was shown."""

    def __init__(self, *, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.head, self.scale = nn.Linear(3, 6), nn.Linear(6, 4), scale
        self.shown = 0

    def forward(self, x: Tensor) -> Tensor:
        self.shown += len(x)
        return self.scale * self.head(self.body(x).relu())


class Shelves:
    """Opens caches in one folder, as one run after the other does, and collects what they say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()

    def open(
        self,
        module: nn.Module,
        *,
        samples: Lasting = SAMPLES,
        taps: tuple[str, ...] = (),
        precision: str = "fp32",
        limit_gb: float | None = None,
    ) -> Cached:
        found = keep_answers(
            {"t": Frozen(module, taps=taps)}, limit_gb or "auto", folder=self.folder, samples=samples,
            precision=precision, note=self.said.append,
        )["t"]  # fmt: skip
        assert isinstance(found, Cached)
        return found


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    return Shelves(tmp_path / "answers")


def play(teacher: Cached, *, epoch: int = 0, variant: int | None = 0, stop_after: int = 99) -> dict[int, Out]:
    """An epoch in batches of five, in another order each time; the answers by sample."""
    order = torch.randperm(12, generator=torch.Generator().manual_seed(epoch))
    said: dict[int, Out] = {}
    for rows in order.split(5)[:stop_after]:
        out = teacher.see(Batch(x=X[rows] + 10 * (variant or 0), index=rows, variant=variant))
        for place, row in enumerate(rows.tolist()):
            said[row] = Out(logits=out.logits[place], feats={tap: value[place] for tap, value in out.feats.items()})
    if stop_after == 99:
        teacher.after(epoch)
    return said


def test_what_is_read_is_what_was_said_and_the_network_is_asked_once(shelves: Shelves) -> None:
    module = Counted()
    teacher = shelves.open(module, taps=("body",))
    first, second = play(teacher), play(teacher, epoch=1)
    assert module.shown == 12
    exact = module.eval()
    for row in range(12):
        torch.testing.assert_close(second[row].logits, first[row].logits, rtol=0, atol=0)
        torch.testing.assert_close(second[row].feats["body"], first[row].feats["body"], rtol=0, atol=0)
        torch.testing.assert_close(second[row].logits, exact(X[row : row + 1])[0].detach(), rtol=1e-3, atol=1e-3)
    assert second[0].logits.dtype == torch.float32
    assert teacher.read == teacher.computed == 12


def test_the_next_run_reads_what_this_one_wrote(shelves: Shelves) -> None:
    first = play(shelves.open(Counted()))
    module = Counted()
    again = play(shelves.open(module))
    assert module.shown == 0
    for row in range(12):
        torch.testing.assert_close(again[row].logits, first[row].logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [{"precision": "bf16"}, {"samples": Lasting(fingerprint="others", count=12)}, {"taps": ("body",)},
     {"samples": Lasting(fingerprint="pictures", count=12, variants=2)}],
)  # fmt: skip
def test_answers_to_something_else_are_not_taken(shelves: Shelves, change: dict[str, Any]) -> None:
    play(shelves.open(Counted()))
    module = Counted()
    play(shelves.open(module, **change))
    assert module.shown == 12


def test_another_teachers_answers_are_never_taken(shelves: Shelves) -> None:
    mine = shelves.open(Counted(seed=0))
    play(mine)
    module = Counted(seed=1)
    other = shelves.open(module)
    assert other.folder != mine.folder
    shutil.copytree(mine.folder, other.folder)  # as if somebody had moved things about
    said = play(other)
    assert module.shown == 12
    torch.testing.assert_close(said[0].logits, module(X[:1])[0].detach(), rtol=1e-3, atol=1e-3)
    assert any("of another teacher" in note for note in shelves.said)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty"])
def test_damaged_answers_are_computed_again(shelves: Shelves, how: str) -> None:
    teacher = shelves.open(Counted())
    first = play(teacher)
    (file,) = teacher.folder.glob("*")
    content = bytearray(file.read_bytes())
    content[-9] ^= 0x10
    file.write_bytes({"flipped": content, "cut": content[:-30], "empty": b""}[how])
    module = Counted()
    again = play(shelves.open(module))
    assert module.shown == 12
    assert any("damaged" in note for note in shelves.said)
    torch.testing.assert_close(again[3].logits, first[3].logits, rtol=0, atol=0)
    untouched = Counted()
    play(shelves.open(untouched))
    assert untouched.shown == 0  # and it is whole again


def test_an_epoch_that_did_not_end_leaves_nothing_behind(shelves: Shelves) -> None:
    teacher = shelves.open(Counted())
    play(teacher, stop_after=2)
    teacher.after(0)
    assert not list(teacher.folder.glob("*"))


def test_samples_that_vary_freely_are_asked_anew_each_time(shelves: Shelves) -> None:
    module = Counted()
    teacher = shelves.open(module)
    play(teacher, variant=None)
    play(teacher, variant=None, epoch=1)
    assert module.shown == 24
    assert not list(teacher.folder.glob("*"))


def test_each_fixed_variation_is_kept_apart(shelves: Shelves) -> None:
    module = Counted()
    teacher = shelves.open(module, samples=replace(SAMPLES, variants=2))
    said = [play(teacher, epoch=epoch, variant=epoch % 2) for epoch in range(4)]
    assert module.shown == 24
    torch.testing.assert_close(said[2][5].logits, said[0][5].logits, rtol=0, atol=0)
    assert not torch.allclose(said[1][5].logits, said[0][5].logits)


def test_answers_beyond_the_limit_are_not_kept(shelves: Shelves) -> None:
    module = Counted()
    teacher = shelves.open(module, limit_gb=5e-8)  # 50 bytes
    play(teacher)
    play(teacher, epoch=1)
    assert module.shown == 24
    assert any("they need 9.6e-08 GB and 5e-08 GB are allowed" in note for note in shelves.said)


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    said: list[str] = []
    for place, name in enumerate(("old", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "answers").write_bytes(b"x" * 400)
        os.utime(tmp_path / name, (1000 + place, 1000 + place))
    shelf = Shelf(folder=tmp_path, limit_bytes=1000, note=said.append)
    assert shelf.reserve(tmp_path / "mine", 500)
    assert not (tmp_path / "old").exists()
    assert (tmp_path / "new").exists()
    assert not shelf.reserve(tmp_path / "huge", 1001)


def test_answers_too_large_for_half_precision_are_passed_on_as_they_are(shelves: Shelves) -> None:
    module = Counted(scale=1e7)
    teacher = shelves.open(module)
    said = play(teacher)
    torch.testing.assert_close(said[0].logits, module(X[:1])[0].detach())
    assert any("larger than float16" in note for note in shelves.said)
    play(teacher, epoch=1)
    assert module.shown > 12


def test_a_folder_that_cannot_be_written_only_costs_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    teacher = Frozen(Counted())
    found = keep_answers(
        {"t": teacher},
        "auto",
        folder=tmp_path / "file" / "answers",
        samples=SAMPLES,
        precision="fp32",
        note=said.append,
    )
    assert found["t"] is teacher
    assert "cannot be written" in said[0]


def test_only_teachers_that_never_change_are_kept(tmp_path: Path) -> None:
    teachers = {"s": Snapshot(Counted()), "f": Frozen(Counted())}
    told: dict[str, Any] = {"folder": tmp_path, "precision": "fp32", "note": print}
    assert keep_answers(teachers, "auto", samples=SAMPLES, **told)["s"] is teachers["s"]
    assert keep_answers(teachers, "off", samples=SAMPLES, **told) == teachers
    assert keep_answers(teachers, "auto", samples=None, **told) == teachers


def surroundings(folder: Path, **changes: Any) -> Context:
    return replace(context(folder), **{"cache": folder / "answers", **changes})


def lesson(**changes: Any) -> Lesson:
    return Lesson(**({"epochs": 3, "batch_size": 64, "lr": 3e-3, "ce": 0.5, "kd": 0.5} | changes))


def test_a_training_reads_the_answers_from_its_second_epoch_on(tmp_path: Path) -> None:
    _, figures = teach(net(), lesson(), surroundings(tmp_path), teacher=net(seed=1))
    assert figures["teacher_answers_read_share"] == pytest.approx(2 / 3, abs=0.02)
    _, figures = teach(
        net(), lesson(lr=1e-3), surroundings(tmp_path / "next", cache=tmp_path / "answers"), teacher=net(seed=1)
    )
    assert figures["teacher_answers_read_share"] == 1.0


def test_of_attention_one_number_for_each_position_is_kept(tmp_path: Path) -> None:
    loss = {"kd": {"weight": 1}, "at": {"weight": 100}}
    _, figures = teach(net(), lesson(loss=loss), surroundings(tmp_path), teacher=net(seed=1))
    assert figures["teacher_answers_read_share"] == pytest.approx(2 / 3, abs=0.02)
    (file,) = (tmp_path / "answers").rglob("variation-0.safetensors")
    kept = load_state(file)["answers"]
    assert kept.keys() > {"logits"}
    assert all(value.shape[1] == 1 for name, value in kept.items() if name != "logits")


def test_a_training_with_fixed_variations_reads_from_where_they_come_again(tmp_path: Path) -> None:
    varied = replace(data(), augment=("flip", "shift"))
    _, figures = teach(net(), lesson(views=2, epochs=4), surroundings(tmp_path, data=varied), teacher=net(seed=1))
    assert figures["teacher_answers_read_share"] == pytest.approx(0.5, abs=0.02)
    _, figures = teach(net(), lesson(), surroundings(tmp_path / "b", data=varied), teacher=net(seed=1))
    assert "teacher_answers_read_share" not in figures


class _Stop(Quiet):
    def update(self, share: float, text: str) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt


def test_a_stopped_training_ends_as_if_it_had_not_been_with_kept_answers_too(tmp_path: Path) -> None:
    whole, parts = net(), net()
    teach(whole, lesson(), surroundings(tmp_path / "a"), teacher=net(seed=1))
    with pytest.raises(KeyboardInterrupt):
        teach(copy.deepcopy(parts), lesson(), surroundings(tmp_path / "b", progress=_Stop()), teacher=net(seed=1))
    teach(parts, lesson(), surroundings(tmp_path / "b"), teacher=net(seed=1))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=0)
