"""Attacked images as samples: what an attack may change, what it leaves alone, and what training on it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nets import context, data, net, stripes
from torch import Tensor, nn

from edgepress.stages.contract import Preprocessing
from edgepress.stages.crew import Crew
from edgepress.stages.distill.nouns import Player
from edgepress.stages.distill.players import learner
from edgepress.stages.distill.robust import Attacked, attacked, robust_logits
from edgepress.stages.distill.samples import Loaded
from edgepress.stages.distill.settings import Attack
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.lesson import Lesson
from edgepress.stages.teaching import teach
from edgepress.targets.errors import StageError

PIXELS = Preprocessing(size=(8, 8), channels=1, mean=(0.3,), std=(0.25,))


def lesson(**changes: Any) -> Lesson:
    values: dict[str, Any] = {"epochs": 2, "batch_size": 32, "lr": 3e-3, "ce": 0.0, "kd": 1.0}
    return Lesson(**(values | changes))


def loaded() -> Loaded:
    split = data().train
    assert split is not None
    return Loaded(split, PIXELS, batch_size=32, seed=0, crew=Crew(device=torch.device("cpu")))


def player() -> Player:
    return learner(net(), lesson(), teachers={"teacher": Frozen(net(seed=1))}, probe=loaded().probe(), steps=1)


def against(labels: Tensor) -> Any:
    return lambda logits: nn.functional.cross_entropy(logits, labels)


def test_an_attack_stays_within_its_box_and_within_the_pixels_there_are() -> None:
    module, attack = net(), Attack(epsilon=0.1, step_size=0.04, steps=5)
    images, labels = stripes(16, seed=0)
    pixels = images.float() / 255
    pixels[:, :, :2] = 1.0  # where moving up is no pixel any more
    pixels[:, :, 2:4] = 0.0
    found = attacked(module, PIXELS.normalize(pixels), against(labels), attack, PIXELS) * 0.25 + 0.3
    assert (found - pixels).abs().max() <= 0.1 + 1e-6
    assert (found - pixels).abs().max() > 0.09
    assert found.min() >= -1e-6
    assert found.max() <= 1 + 1e-6


def test_an_attack_raises_the_loss_more_than_chance_does() -> None:
    module, attack = net(), Attack(epsilon=0.1, step_size=0.03, steps=8)
    images, labels = stripes(64, seed=0)
    x = PIXELS.normalize(images)
    loss = against(labels)
    with torch.no_grad():
        clean = loss(module(x))
        noisy = loss(
            module(PIXELS.normalize((images / 255 + torch.empty(images.shape).uniform_(-0.1, 0.1)).clamp(0, 1)))
        )
        worst = loss(module(attacked(module, x, loss, attack, PIXELS)))
    assert worst > clean + 0.02
    assert worst - clean > 4 * (noisy - clean).abs()


def test_an_attack_leaves_no_gradient_and_no_trace_in_the_network() -> None:
    module = net().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    images, labels = stripes(8, seed=0)
    attacked(module, PIXELS.normalize(images), against(labels), Attack(), PIXELS)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert module.training
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_attacked_image_is_for_the_student_and_the_clean_one_for_the_teacher() -> None:
    attack = Attack(epsilon=0.1)
    plain, samples = loaded(), Attacked(loaded(), attack, PIXELS, needs=frozenset({"view"}))
    plain.begin(0), samples.begin(0)
    clean, batch = plain.next(player()), samples.next(player())
    assert batch.teacher_x is not None
    assert batch.view is not None
    torch.testing.assert_close(batch.teacher_x, clean.x, rtol=0, atol=0)
    torch.testing.assert_close(batch.view, clean.x, rtol=0, atol=0)
    assert not torch.equal(batch.x, clean.x)


def test_an_attack_against_the_teacher_s_answer_needs_a_teacher() -> None:
    alone = player()
    alone.teachers = {}
    samples = Attacked(loaded(), Attack(objective="kl"), PIXELS, needs=frozenset())
    samples.begin(0)
    with pytest.raises(StageError, match="use ce"):
        samples.next(alone)


def test_training_under_attack_makes_a_network_that_is_harder_to_mislead(tmp_path: Path) -> None:
    attack = Attack(epsilon=0.06, step_size=0.03, steps=3, objective="ce")
    surroundings = context(tmp_path)
    validation = surroundings.data.val

    def robust(module: nn.Module) -> float:
        answers, labels = robust_logits(module, validation, attack, PIXELS, seed=0)
        return 100 * float((answers.argmax(1) == labels).float().mean())

    plain, hard = net(), net()
    usual = {"epochs": 8, "lr": 1e-2, "ce": 1, "kd": 0}
    teach(plain, lesson(**usual), context(tmp_path / "plain"), teacher=None)
    _, figures = teach(hard, lesson(**usual, attack=attack), context(tmp_path / "hard"), teacher=None)
    assert robust(hard) > robust(plain) + 5
    assert figures["robust_validation_accuracy"] == pytest.approx(robust(hard))


def test_rslad_and_ard_train_under_attack(tmp_path: Path) -> None:
    losses = {"rslad": 1, "ard": {"weight": 0.01, "share": 0.5}}
    trained, _ = teach(
        net(), lesson(loss=losses, attack=Attack(steps=2), epochs=1), context(tmp_path), teacher=net(seed=1)
    )
    assert {"rslad", "ard"} <= set(trained.curves)


def test_a_fraction_is_understood_as_a_pixel_size() -> None:
    assert Lesson(attack={"epsilon": "8/255", "steps": 3}).attack == Attack(epsilon=8 / 255, steps=3)  # type: ignore[arg-type]
