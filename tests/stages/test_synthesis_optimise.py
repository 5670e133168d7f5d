"""Pixels that are optimised: like data for the teacher's batch norms, within what an image can hold, repeatable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from nets import CLASSES, SHAPE, net, stripes
from torch import Tensor, nn

from edgepress.stages.contract import Preprocessing
from edgepress.stages.distill.settings import Loss
from edgepress.stages.synthesis.methods import METHODS
from edgepress.stages.synthesis.optimise import ByPixels
from edgepress.stages.synthesis.order import Order
from edgepress.stages.synthesis.settings import Synthesis
from edgepress.targets.errors import StageError

PIXELS = Preprocessing(size=(8, 8), channels=1, mean=(0.3,), std=(0.25,))
ZEROQ = METHODS["zeroq"].priors
BATCH = 8


@dataclass
class Said:
    """Notes what is told of the progress."""

    shares: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def update(self, share: float, text: str) -> None:
        self.shares.append(share)
        self.texts.append(text)


def maker(
    *, teacher: nn.Module | None = None, student: nn.Module | None = None, seed: int = 0, steps: int = 40,
    progress: Said | None = None, **changes: Any,
) -> ByPixels:  # fmt: skip
    """Of the method zeroq, but for what is changed."""
    order = Order(
        method=replace(METHODS["zeroq"], **{"lr": 0.1, **changes}),
        settings=Synthesis(batch=BATCH, steps=steps),
        classes=CLASSES,
        preprocessing=PIXELS,
        seed=seed,
        device=torch.device("cpu"),
    )
    return ByPixels(order, teacher=net() if teacher is None else teacher, student=student, progress=progress)


def fell(one: ByPixels, images: Tensor) -> float:
    """The cost of images as a share of that of the noise they began as."""
    with torch.no_grad():
        began = one.cost(one.noise(BATCH, torch.Generator().manual_seed(99)))
        return float(one.cost(PIXELS.normalize(images)) / began)


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
    one = maker(teacher=learned(), steps=80)
    images = one.make()
    assert fell(one, images) < 0.3
    assert images.shape == (BATCH, *SHAPE)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_images_that_are_wanted_of_all_classes_are_taken_for_them() -> None:
    teacher = net()
    priors = {"onehot": Loss(weight=1.0), "tv": Loss(weight=1e-3)}
    one = maker(teacher=teacher, priors=priors, wants=True, steps=60)
    images = one.make()
    assert fell(one, images) < 1
    with torch.no_grad():
        taken = teacher(PIXELS.normalize(images)).argmax(dim=1)
    assert (taken == torch.arange(BATCH) % CLASSES).float().mean() >= 0.75


def test_the_same_seed_makes_the_same_images_whatever_else_is_random() -> None:
    made = []
    for seed, lot in ((0, 1), (0, 2), (1, 2)):
        torch.manual_seed(lot)
        made.append(maker(seed=seed, steps=5, jitter=2).make())
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_a_maker_that_was_stopped_goes_on_with_the_next_batch() -> None:
    whole, rest = maker(steps=3), maker(steps=3)
    first = whole.make()
    rest.load_state_dict(whole.state_dict())
    second = whole.make()
    assert not torch.equal(first, second)
    assert torch.equal(rest.make(), second)


def test_priors_are_wired_once_for_all_batches() -> None:
    said, teacher = Said(), net()
    looked: list[int] = []
    handle = teacher.register_forward_hook(lambda *_: looked.append(1))
    one = maker(teacher=teacher, steps=12, progress=said)
    before, objective = len(looked), one.objective
    for _ in range(3):
        one.make()
    handle.remove()
    assert len(looked) - before == 3 * 12  # a pass for each step, and none beside them
    assert one.objective is objective
    assert said.shares == [0.0, 10 / 12] * 3
    assert all(text.startswith("loss ") for text in said.texts)


def test_the_teacher_is_as_it_was() -> None:
    teacher = net().train()
    teacher.block.eval()
    modes = [part.training for part in teacher.modules()]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    maker(teacher=teacher, steps=3).make()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert [part.training for part in teacher.modules()] == modes
    assert all(one.requires_grad and one.grad is None for one in teacher.parameters())


def test_images_can_be_made_against_a_student_that_must_be_another_network() -> None:
    against = {"disagreement": Loss(weight=-1.0, options={"kind": "js"})}
    student, teacher = net(seed=3, width=8), net()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    one = maker(teacher=teacher, student=student, against=against, steps=20)
    images = one.make()
    with torch.no_grad():
        assert float(one.cost(PIXELS.normalize(images))) < float(one.cost(one.noise(8, torch.Generator())))
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    with pytest.raises(StageError, match="the student is its own teacher"):
        maker(teacher=teacher, student=teacher, against=against)


def test_a_loss_that_is_not_finite_is_reported_with_what_to_do() -> None:
    with pytest.raises(StageError, match=r"the loss of the images is (nan|inf) at step 1: look whether data\.mean"):
        maker(priors={"norm": Loss(weight=float("inf"))}).make()


def test_statistics_are_matched_by_batches_so_that_images_differ() -> None:
    assert float(maker().make().std(dim=0).mean()) > 0.05
