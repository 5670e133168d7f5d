"""Pixels that are optimised: like data for the teacher's batch norms, within what an image can hold, repeatable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from nets import CLASSES, SHAPE, net, stripes
from torch import Tensor, nn

from edgepress.stages.contract import Preprocessing
from edgepress.stages.distill.settings import Loss
from edgepress.stages.synthesis.optimise import ZEROQ, Optimised, optimise_images
from edgepress.targets.errors import StageError

PIXELS = Preprocessing(size=(8, 8), channels=1, mean=(0.3,), std=(0.25,))


@dataclass
class Shelf:
    """Keeps what is handed in."""

    batches: list[tuple[Tensor, Tensor, Mapping[str, Any]]] = field(default_factory=list)

    def add(self, images: Tensor, labels: Tensor, *, note: Mapping[str, Any]) -> None:
        self.batches.append((images, labels, note))

    def images(self) -> Tensor:
        return torch.cat([images for images, *_ in self.batches])

    def labels(self) -> Tensor:
        return torch.cat([labels for _, labels, _ in self.batches])


@dataclass
class Said:
    """Notes what is told of the progress."""

    shares: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def update(self, share: float, text: str) -> None:
        self.shares.append(share)
        self.texts.append(text)


def made(shelf: Shelf, *, teacher: nn.Module | None = None, count: int = 8, seed: int = 0, **more: Any) -> Optimised:
    settings = {"batch": 8, "steps": 40, "lr": 0.1, **more}
    return optimise_images(
        net() if teacher is None else teacher,
        shape=SHAPE, preprocessing=PIXELS, count=count, seed=seed, into=shelf, **settings,
    )  # fmt: skip


def learned() -> nn.Module:
    """A network whose batch norms have kept the statistics of pictures."""
    teacher = net()
    for part in teacher.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None  # the plain mean of all it sees
    images, _ = stripes(128, seed=0)
    with torch.no_grad():
        teacher.train()(PIXELS.normalize(images))
    return teacher.eval()


def test_the_loss_falls_a_lot_and_images_stay_images() -> None:
    shelf = Shelf()
    found = made(shelf, teacher=learned(), count=16, batch=16)
    assert found.after[0] < 0.2 * found.before[0]
    images = shelf.images()
    assert images.shape == (16, *SHAPE)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_images_that_are_wanted_of_all_classes_are_taken_for_them() -> None:
    shelf = Shelf()
    found = made(shelf, priors={"onehot": Loss(weight=1.0), "tv": Loss(weight=1e-3)}, steps=60)
    assert found.after[0] < found.before[0]
    assert (shelf.labels() == torch.arange(8) % CLASSES).float().mean() >= 0.75


def test_the_same_seed_makes_the_same_images_whatever_else_is_random() -> None:
    shelves = Shelf(), Shelf(), Shelf()
    torch.manual_seed(1)
    made(shelves[0], steps=5, jitter=2)
    torch.manual_seed(2)
    made(shelves[1], steps=5, jitter=2)
    made(shelves[2], steps=5, jitter=2, seed=1)
    assert torch.equal(shelves[0].images(), shelves[1].images())
    assert not torch.equal(shelves[0].images(), shelves[2].images())


def test_work_that_was_interrupted_goes_on_with_the_next_batch() -> None:
    whole, rest, said = Shelf(), Shelf(), Said()
    made(whole, count=20, steps=3)
    made(rest, count=20, steps=3, done=8, progress=said)
    assert [len(images) for images, *_ in whole.batches] == [8, 8, 4]
    assert torch.equal(rest.images(), whole.images()[8:])
    assert said.texts[0].startswith("images 9 to 16 of 20")
    assert said.texts[-1].startswith("images 17 to 20 of 20")
    assert said.shares == sorted(said.shares)


def test_the_teacher_is_as_it_was() -> None:
    teacher = net().train()
    teacher.block.eval()
    modes = [part.training for part in teacher.modules()]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    made(Shelf(), teacher=teacher, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert [part.training for part in teacher.modules()] == modes
    assert all(one.requires_grad and one.grad is None for one in teacher.parameters())


def test_images_can_be_made_against_a_student_that_must_be_another_network() -> None:
    against = {**ZEROQ, "disagreement": Loss(weight=-1.0, options={"kind": "js"})}
    student = net(seed=3, width=8)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    found = made(Shelf(), student=student, priors=against, steps=20)
    assert found.after[0] < found.before[0]
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    with pytest.raises(StageError, match="the student is its own teacher"):
        made(Shelf(), priors=against)


def test_a_loss_that_is_not_finite_is_reported_with_what_to_do() -> None:
    with pytest.raises(StageError, match="the loss of the images is (nan|inf) at step 1: give a smaller learning rate"):
        made(Shelf(), priors={"norm": Loss(weight=float("inf"))})


def test_statistics_are_matched_by_batches_so_that_images_differ() -> None:
    shelf = Shelf()
    made(shelf)
    spread = shelf.images().std(dim=0)
    assert float(spread.mean()) > 0.05
