"""The losses of tasks that are no choice of one class."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from answers import kl, logits, told, value

from edgepress.stages.distill.losses import make
from edgepress.targets.errors import StageError


def test_binary_cross_entropy_is_the_mean_over_samples_and_labels() -> None:
    said, labels = logits(4, 3), torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    p = said.sigmoid()
    expected = -torch.where(labels == 1, p.log(), (1 - p).log()).mean()
    torch.testing.assert_close(value(make("bce", {}), told(said, said, y=labels)), expected)


def test_labels_that_nobody_knows_count_for_nothing() -> None:
    said = logits(2, 3)
    loss = value(make("bce", {}), told(said, said, y=torch.tensor([[0.0, -1.0, 1.0], [-1.0, -1.0, -1.0]])))
    p = said.sigmoid()
    torch.testing.assert_close(loss, -((1 - p[0, 0]).log() + p[0, 2].log()) / 2)


def test_binary_distillation_is_a_divergence_for_each_label() -> None:
    student, teacher = logits(4, 3), logits(4, 3, seed=1)
    p, q = (teacher / 2).sigmoid(), (student / 2).sigmoid()
    expected = 4 * kl(torch.stack([p, 1 - p], -1), torch.stack([q, 1 - q], -1)).mean()
    torch.testing.assert_close(value(make("bkd", {"temperature": 2.0}), told(student, teacher)), expected)


def test_binary_distillation_of_a_hard_teacher_is_binary_cross_entropy() -> None:
    said, labels = logits(4, 3), (logits(4, 3, seed=1) > 0).float()
    sure = 200 * labels - 100
    soft = value(make("bkd", {}), told(said, sure))
    torch.testing.assert_close(soft, value(make("bce", {}), told(said, said, y=labels)))


def test_binary_distillation_takes_a_single_yes_or_no() -> None:
    assert value(make("bkd", {}), told(logits(4, 1), logits(4, 1, seed=1))) > 0


def test_regression_losses_are_their_formulas() -> None:
    said, labels = torch.tensor([[1.0], [5.0]]), torch.tensor([[0.5], [2.0]])
    torch.testing.assert_close(value(make("mse", {}), told(said, said, y=labels)), torch.tensor((0.25 + 9) / 2))
    expected = torch.tensor((0.5 * 0.25 + 2 * (3 - 1)) / 2)
    torch.testing.assert_close(value(make("huber", {"delta": 2.0}), told(said, said, y=labels)), expected)


@pytest.mark.parametrize("name", ["mse", "huber"])
def test_one_number_for_each_sample_may_come_without_a_second_dimension(name: str) -> None:
    said, labels = logits(4, 1), logits(4, 1, seed=1)
    flat = value(make(name, {}), told(said, said, y=labels.flatten()))
    torch.testing.assert_close(flat, value(make(name, {}), told(said, said, y=labels)))


@pytest.mark.parametrize("name", ["mse", "huber", "bce"])
def test_labels_of_another_shape_are_refused(name: str) -> None:
    with pytest.raises(StageError, match="number by number"):
        make(name, {}).build(told(logits(4, 3), logits(4, 3), y=torch.arange(4)))


@pytest.mark.parametrize("name", ["bce", "bkd", "huber"])
def test_extreme_numbers_stay_finite(name: str) -> None:
    said = logits(4, 3, scale=1e4).requires_grad_()
    loss = value(make(name, {}), told(said, logits(4, 3, seed=1, scale=1e4), y=torch.ones(4, 3)))
    loss.backward()
    assert torch.isfinite(loss)
    assert said.grad is not None
    assert torch.isfinite(said.grad).all()


def test_a_regression_is_distilled_by_its_numbers() -> None:
    student, teacher = logits(4, 1), logits(4, 1, seed=1)
    torch.testing.assert_close(value(make("logits", {}), told(student, teacher)), F.mse_loss(student, teacher))
