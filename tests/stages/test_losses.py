"""The losses against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgepress.stages.distill.nouns import Batch, Objective, Out, Step, Weighted
from edgepress.stages.distill.response import CrossEntropy, KnowledgeDistillation, divergence
from edgepress.targets.errors import StageError


def logits(seed: int, *, batch: int = 6, classes: int = 10) -> Tensor:
    return torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed))


def step(student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Step:
    return Step(
        batch=Batch(x=torch.zeros(len(student)), y=labels),
        student=Out(logits=student),
        teachers={"teacher": Out(logits=teacher)},
        progress=0.0,
    )


def test_divergence_is_the_textbook_sum_over_classes_and_mean_over_batch() -> None:
    student, teacher, temperature = logits(0), logits(1), 3.0
    p = (teacher / temperature).softmax(1)
    q = (student / temperature).softmax(1)
    by_hand = temperature**2 * (p * (p / q).log()).sum() / len(p)
    torch.testing.assert_close(divergence(student, teacher, temperature=temperature), by_hand)


def test_a_student_that_copies_its_teacher_has_nothing_left_to_imitate() -> None:
    torch.testing.assert_close(divergence(logits(0), logits(0), temperature=4.0), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_divergence_is_never_negative() -> None:
    assert all(divergence(logits(2 * i), logits(2 * i + 1), temperature=2.0) > 0 for i in range(20))


def test_repeating_the_batch_does_not_rescale_the_divergence() -> None:
    once = divergence(logits(0), logits(1), temperature=4.0)
    twice = divergence(logits(0).repeat(2, 1), logits(1).repeat(2, 1), temperature=4.0)
    torch.testing.assert_close(once, twice)


def test_classes_that_nobody_believes_in_do_not_rescale_the_divergence() -> None:
    padding = torch.full((6, 90), -1e4)
    padded = divergence(torch.cat([logits(0), padding], 1), torch.cat([logits(1), padding], 1), temperature=4.0)
    torch.testing.assert_close(padded, divergence(logits(0), logits(1), temperature=4.0))


@pytest.mark.parametrize("temperature", [20.0, 50.0, 200.0])
def test_at_high_temperature_the_gradient_is_the_difference_of_the_logits(temperature: float) -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    divergence(student, teacher, temperature=temperature).backward()
    centred = [z.detach() - z.detach().mean(1, keepdim=True) for z in (student, teacher)]
    expected = (centred[0] - centred[1]) / student.shape[1] / len(student)
    assert student.grad is not None
    error = (student.grad - expected).norm() / expected.norm()
    assert error < 0.15 * 20 / temperature + 0.01


def test_divergence_is_finite_for_extreme_logits() -> None:
    student = (logits(0) * 1e4).requires_grad_()
    loss = divergence(student, logits(1) * 1e4, temperature=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_an_objective_is_the_weighted_sum_of_its_terms() -> None:
    labels = torch.tensor([0, 1, 2, 3, 4, 5])
    objective = Objective(
        [
            Weighted(name="ce", term=CrossEntropy(), weight=0.1),
            Weighted(name="kd", term=KnowledgeDistillation(temperature=4.0), weight=0.9),
        ]
    )
    total, values = objective(step(logits(0), logits(1), labels))
    expected = 0.1 * F.cross_entropy(logits(0), labels) + 0.9 * divergence(logits(0), logits(1), temperature=4.0)
    torch.testing.assert_close(total, expected)
    assert set(values) == {"ce", "kd"}


def test_a_term_of_weight_0_is_not_computed() -> None:
    objective = Objective(
        [
            Weighted(name="ce", term=CrossEntropy(), weight=0.0),
            Weighted(name="kd", term=KnowledgeDistillation(temperature=4.0), weight=1.0),
        ]
    )
    _, values = objective(step(logits(0), logits(1)))  # no labels: cross-entropy would fail
    assert set(values) == {"kd"}
    assert "labels" not in objective.needs()


def test_an_objective_without_any_weight_is_refused() -> None:
    with pytest.raises(StageError, match="nothing to learn"):
        Objective([Weighted(name="ce", term=CrossEntropy(), weight=0.0)])
