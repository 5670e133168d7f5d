"""Knowledge distillation: its kinds, masks of classes, several teachers, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from answers import kl, logits, told, value
from torch import nn

from edgepress.stages.distill.losses import make
from edgepress.stages.distill.nouns import Batch
from edgepress.stages.distill.response import CrossEntropy, KnowledgeDistillation, divergence, each_divergence
from edgepress.stages.distill.settings import Loss
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.distill.wiring import wire
from edgepress.targets.errors import RecipeError, StageError


def test_each_kind_is_its_formula() -> None:
    student, teacher = logits(7, 5), logits(7, 5, seed=1)
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    middle = (p + q) / 2
    by_hand = {
        "forward": kl(p, q),
        "reverse": kl(q, p),
        "js": (kl(p, middle) + kl(q, middle)) / 2,
        "tv": (p - q).abs().sum(1) / 2,
    }
    for kind, expected in by_hand.items():
        loss = value(make("kd", {"kind": kind, "temperature": 3.0}), told(student, teacher))
        torch.testing.assert_close(loss, 9 * expected.mean())


def test_the_adaptive_kind_mixes_by_where_the_gap_is() -> None:
    teacher = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()  # the head is the first class: with the second it holds 0.7
    student = torch.tensor([[0.3, 0.3, 0.2, 0.2]]).log()  # gaps 0.1, 0, 0, 0.1: half in the head
    p, q = teacher.exp(), student.exp()
    mixed = each_divergence(student, teacher, temperature=1.0, kind="adaptive")
    torch.testing.assert_close(mixed, 0.5 * kl(p, q) + 0.5 * kl(q, p))


def test_the_adaptive_kind_takes_a_sure_first_class_for_the_head() -> None:
    teacher, student = torch.tensor([[0.9, 0.06, 0.04]]).log(), torch.tensor([[0.7, 0.2, 0.1]]).log()
    p, q = teacher.exp(), student.exp()
    head = 0.2 / (0.2 + 0.14 + 0.06)
    mixed = each_divergence(student, teacher, temperature=1.0, kind="adaptive")
    torch.testing.assert_close(mixed, head * kl(p, q) + (1 - head) * kl(q, p))


def test_a_temperature_for_each_row_is_that_row_s() -> None:
    student, teacher = logits(2, 5), logits(2, 5, seed=1)
    both = each_divergence(student, teacher, temperature=torch.tensor([[2.0], [7.0]]))
    alone = [divergence(student[i], teacher[i], temperature=t) for i, t in enumerate((2.0, 7.0))]
    torch.testing.assert_close(both, torch.stack(alone))


def test_classes_are_compared_as_softmaxes_over_these_alone() -> None:
    student, teacher = logits(4, 6), logits(4, 6, seed=1)
    some = value(KnowledgeDistillation(classes=[1, 4, 5]), told(student, teacher))
    torch.testing.assert_close(some, divergence(student[:, [1, 4, 5]], teacher[:, [1, 4, 5]], temperature=4.0))


def test_a_teacher_of_fewer_classes_is_compared_on_those() -> None:
    student, teacher = logits(4, 6), logits(4, 3, seed=1)
    some = value(KnowledgeDistillation(classes=[5, 0, 2]), told(student, teacher))
    torch.testing.assert_close(some, divergence(student[:, [5, 0, 2]], teacher, temperature=4.0))


def test_classes_outside_the_mask_get_no_gradient() -> None:
    student = logits(4, 6).requires_grad_()
    value(KnowledgeDistillation(classes=[1, 4]), told(student, logits(4, 6, seed=1))).backward()
    assert student.grad is not None
    assert student.grad[:, [0, 2, 3, 5]].abs().max() == 0


TRUST = torch.tensor([[0.2, 0.5, 1.0], [0.8, 0.5, 0.0]])


def test_several_teachers_are_combined_in_three_ways() -> None:
    student, one, other = logits(3, 5), logits(3, 5, seed=1), logits(3, 5, seed=2)
    p, q, r = ((said / 2).softmax(1) for said in (one, other, student))
    w, v = TRUST[0].unsqueeze(1), TRUST[1].unsqueeze(1)
    by_hand = {
        "each": TRUST[0] * kl(p, r) + TRUST[1] * kl(q, r),
        "probabilities": kl(w * p + v * q, r),
        "logits": kl(((w * one + v * other) / 2).softmax(1), r),
    }
    step = told(student, {"one": one, "other": other}, trust=TRUST)
    losses = []
    for combine, expected in by_hand.items():
        losses.append(value(make("kd", {"combine": combine, "temperature": 2.0}), step))
        torch.testing.assert_close(losses[-1], 4 * expected.mean())
    assert losses[1] < losses[0]  # Jensen
    assert not torch.isclose(losses[1], losses[2])


@pytest.mark.parametrize("combine", ["each", "probabilities", "logits"])
def test_one_teacher_or_two_alike_are_plain_distillation(combine: str) -> None:
    student, teacher = logits(4, 5), logits(4, 5, seed=1)
    plain = divergence(student, teacher, temperature=4.0)
    term = make("kd", {"combine": combine})
    torch.testing.assert_close(value(term, told(student, teacher)), plain)
    torch.testing.assert_close(value(term, told(student, {"a": teacher, "b": teacher.clone()})), plain)


def test_how_much_teachers_count_for_a_sample_holds_for_its_tokens() -> None:
    student, one, other = logits(3, 2, 5), logits(3, 2, 5, seed=1), logits(3, 2, 5, seed=2)
    mask = torch.tensor([[1, 1], [1, 0], [0, 1]], dtype=torch.bool)
    step = told(student, {"one": one, "other": other}, trust=TRUST, mask=mask)
    samples = torch.tensor([0, 0, 1, 2])
    alone = told(student[mask], {"one": one[mask], "other": other[mask]}, trust=TRUST[:, samples])
    torch.testing.assert_close(value(KnowledgeDistillation(), step), value(KnowledgeDistillation(), alone))


def test_how_much_teachers_count_for_a_sample_holds_for_its_pixels() -> None:
    said = [logits(3, 5, 2, 2, seed=i) for i in range(3)]
    step = told(said[0], {"one": said[1], "other": said[2]}, trust=TRUST)
    flat = [one.movedim(1, -1).reshape(-1, 5) for one in said]
    alone = told(flat[0], {"one": flat[1], "other": flat[2]}, trust=TRUST.repeat_interleave(4, dim=1))
    torch.testing.assert_close(value(KnowledgeDistillation(), step), value(KnowledgeDistillation(), alone))


def test_a_logit_for_yes_or_no_is_refused() -> None:
    with pytest.raises(StageError, match="a softmax of one number is always 1"):
        KnowledgeDistillation().build(told(logits(4, 1), logits(4, 1)))


def test_answers_at_other_positions_are_refused() -> None:
    with pytest.raises(StageError, match="agree position by position"):
        KnowledgeDistillation().build(told(logits(2, 5, 4, 4), logits(2, 5, 2, 2)))


def test_a_class_that_the_student_does_not_tell_is_refused() -> None:
    with pytest.raises(StageError, match="names class 9, and the student tells classes 0 to 4"):
        KnowledgeDistillation(classes=[1, 9]).build(told(logits(2, 5), logits(2, 5)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0}, "temperature is 0; it must be above 0"),
        ({"kind": "sideways"}, "it can be forward, reverse, js, tv, adaptive"),
        ({"combine": "sum"}, "it can be each, probabilities, logits"),
        ({"classes": [3]}, "two or more different class numbers"),
        ({"classes": [3, 3]}, "two or more different class numbers"),
        ({"classes": [-1, 3]}, "two or more different class numbers"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        make("kd", options)


def test_cross_entropy_of_pixels_and_of_tokens_is_that_of_their_rows() -> None:
    said, labels = logits(12, 5), torch.arange(12) % 5
    flat = value(CrossEntropy(), told(said, said, y=labels))
    torch.testing.assert_close(flat, -(said.log_softmax(1)[torch.arange(12), labels]).mean())
    pixels = said.reshape(2, 2, 3, 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(value(CrossEntropy(), told(pixels, pixels, y=labels.reshape(2, 2, 3))), flat)
    tokens = said.reshape(3, 4, 5)
    torch.testing.assert_close(value(CrossEntropy(), told(tokens, tokens, y=labels.reshape(3, 4))), flat)


def test_cross_entropy_skips_what_has_no_label_and_what_is_masked() -> None:
    said, labels = logits(2, 3, 5), torch.tensor([[0, -100, 1], [2, 3, 4]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    kept = said.reshape(-1, 5)[[0, 2, 3]]
    expected = -kept.log_softmax(1)[torch.arange(3), torch.tensor([0, 1, 2])].mean()
    torch.testing.assert_close(value(CrossEntropy(), told(said, said, y=labels, mask=mask)), expected)


def test_cross_entropy_of_a_batch_without_labels_is_nothing() -> None:
    said = logits(2, 3, 5).requires_grad_()
    loss = value(CrossEntropy(), told(said, said, y=torch.full((2, 3), -100)))
    loss.backward()
    assert loss == 0
    assert said.grad is not None
    assert math.isfinite(said.grad.sum())


def test_a_teacher_that_knows_some_of_the_classes_is_wired() -> None:
    batch = Batch(x=torch.randn(4, 3))
    objective = wire(
        {"kd": Loss(options={"classes": [0, 2]})},
        learner=nn.Linear(3, 5), teachers={"old": Frozen(nn.Linear(3, 2))}, probe=batch,
    )  # fmt: skip
    assert set(objective.terms) == {"kd"}


def test_several_teachers_are_one_loss_and_not_one_for_each() -> None:
    batch = Batch(x=torch.randn(4, 3))
    objective = wire(
        {"kd": Loss()}, learner=nn.Linear(3, 5), probe=batch,
        teachers={"a": Frozen(nn.Linear(3, 5)), "b": Frozen(nn.Linear(3, 5))},
    )  # fmt: skip
    assert set(objective.terms) == {"kd"}


def test_distilling_without_a_teacher_says_what_is_missing() -> None:
    with pytest.raises(StageError, match="the loss kd needs a teacher, and there is none"):
        wire({"kd": Loss()}, learner=nn.Linear(3, 5), teachers={}, probe=Batch(x=torch.randn(4, 3)))


@pytest.mark.parametrize("name", ["dkd", "drkd", "tfkd", "bce", "mse"])
def test_a_loss_that_needs_labels_is_refused_without_them(name: str) -> None:
    teachers = {"teacher": Frozen(nn.Linear(3, 5))}
    with pytest.raises(StageError, match=f"the loss {name} needs labels"):
        wire({name: Loss()}, learner=nn.Linear(3, 5), teachers=teachers, probe=Batch(x=torch.randn(4, 3)))


def test_specialists_are_refused_with_one_teacher() -> None:
    loss = Loss(options={"classes": {"a": [0, 1]}})
    with pytest.raises(StageError, match="at least two teachers"):
        wire(
            {"specialists": loss}, learner=nn.Linear(3, 5), teachers={"a": Frozen(nn.Linear(3, 5))},
            probe=Batch(x=torch.randn(4, 3)),
        )  # fmt: skip
