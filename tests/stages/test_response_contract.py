"""What every loss on answers keeps, whatever its formula."""

from __future__ import annotations

import pytest
import torch
from answers import kl, logits, told, value
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgepress.stages.distill.losses import make
from edgepress.stages.distill.nouns import Batch, Term
from edgepress.stages.distill.response import divergence
from edgepress.stages.distill.settings import Loss
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.distill.wiring import wire
from edgepress.targets.errors import StageError

NAMES = (
    "kd", "logits", "hard", "dkd", "cakd", "normkd", "lskd", "luminet", "clkd", "dist", "ctkd", "mlkd", "skd", "tfkd",
    "drkd", "uld", "bkd",
)  # fmt: skip
BY_BATCH = {"luminet", "clkd", "dist", "mlkd", "skd"}  # these look at the samples of a batch together
NEVER_ZERO = {"hard", "tfkd"}  # their target is no answer that a student could copy
CLASSES = 6
LABELS = torch.arange(8) % CLASSES


def term(name: str) -> Term:
    return make(name, {})


@pytest.mark.parametrize("name", sorted({*NAMES} - NEVER_ZERO))
def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn(name: str) -> None:
    said = logits(8, CLASSES)
    if name == "drkd":
        said[torch.arange(8), LABELS] += 20  # a teacher that is wrong is not copied
    loss = value(term(name), told(said, said.clone(), y=LABELS))
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_another_answer_costs_something_and_has_a_gradient(name: str) -> None:
    student = logits(8, CLASSES).requires_grad_()
    loss = value(term(name), told(student, logits(8, CLASSES, seed=1), y=LABELS))
    loss.backward()
    assert loss.ndim == 0
    assert loss > 0
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_give_a_finite_loss_and_a_finite_gradient(name: str) -> None:
    student = logits(8, CLASSES, scale=1e4).requires_grad_()
    loss = value(term(name), told(student, logits(8, CLASSES, seed=1, scale=1e4), y=LABELS))
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_student_that_says_nothing_yet_gets_a_finite_gradient(name: str) -> None:
    student = torch.zeros(8, CLASSES, requires_grad=True)  # a classifier that starts at zero
    loss = value(term(name), told(student, logits(8, CLASSES, seed=1), y=LABELS))
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("name", sorted({*NAMES} - BY_BATCH))
def test_repeating_the_batch_changes_nothing(name: str) -> None:
    student, teacher = logits(8, CLASSES), logits(8, CLASSES, seed=1)
    once = value(term(name), told(student, teacher, y=LABELS))
    twice = value(term(name), told(student.repeat(2, 1), teacher.repeat(2, 1), y=LABELS.repeat(2)))
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("name", ["kd", "hard", "dkd", "cakd", "drkd", "uld"])
def test_classes_that_nobody_believes_in_do_not_rescale(name: str) -> None:
    student, teacher, padding = logits(8, CLASSES), logits(8, CLASSES, seed=1), torch.full((8, 90), -1e4)
    padded = told(torch.cat([student, padding], 1), torch.cat([teacher, padding], 1), y=LABELS)
    torch.testing.assert_close(value(term(name), padded), value(term(name), told(student, teacher, y=LABELS)))


@pytest.mark.parametrize("name", sorted({*NAMES} - {"skd"}))
def test_pixels_count_as_samples_do(name: str) -> None:
    student, teacher = logits(12, CLASSES), logits(12, CLASSES, seed=1)
    labels = torch.arange(12) % CLASSES
    flat = value(term(name), told(student, teacher, y=labels))
    maps = [said.reshape(2, 2, 3, CLASSES).permute(0, 3, 1, 2) for said in (student, teacher)]
    torch.testing.assert_close(value(term(name), told(maps[0], maps[1], y=labels.reshape(2, 2, 3))), flat)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"skd"}))
def test_tokens_outside_the_mask_count_for_nothing(name: str) -> None:
    student, teacher = logits(3, 4, CLASSES), logits(3, 4, CLASSES, seed=1)
    labels = torch.arange(12).reshape(3, 4) % CLASSES
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    masked = value(term(name), told(student, teacher, y=labels, mask=mask))
    kept = value(term(name), told(student[mask], teacher[mask], y=labels[mask]))
    torch.testing.assert_close(masked, kept)
    nothing = value(term(name), told(student, teacher, y=labels, mask=torch.zeros(3, 4, dtype=torch.bool)))
    assert nothing == 0


@pytest.mark.parametrize("name", ["dkd", "cakd", "drkd", "tfkd"])
def test_pixels_without_a_label_count_for_nothing(name: str) -> None:
    student, teacher = logits(2, CLASSES, 2, 2), logits(2, CLASSES, 2, 2, seed=1)
    labels = torch.tensor([[[0, 1], [-100, 3]], [[-100, -100], [2, 5]]])
    there = labels != -100
    loss = value(term(name), told(student, teacher, y=labels))
    kept = [said.movedim(1, -1)[there] for said in (student, teacher)]
    torch.testing.assert_close(loss, value(term(name), told(kept[0], kept[1], y=labels[there])))


@pytest.mark.parametrize("name", sorted({*NAMES} - {"uld", "tfkd"}))
def test_a_teacher_of_other_classes_is_refused(name: str) -> None:
    with pytest.raises(StageError, match="tells 7 classes apart and the student 6"):
        term(name).build(told(logits(8, CLASSES), logits(8, 7), y=LABELS))


@pytest.mark.parametrize("name", sorted({*NAMES} - {"tfkd"}))
def test_no_gradient_reaches_the_teacher(name: str) -> None:
    torch.manual_seed(0)
    student, teacher = nn.Linear(3, CLASSES), nn.Linear(3, CLASSES)
    batch = Batch(x=torch.randn(8, 3), y=LABELS)
    source = Frozen(teacher)
    objective = wire({name: Loss()}, learner=student, teachers={"teacher": source}, probe=batch)
    said = told(student(batch.x), source.see(batch).logits, y=LABELS)
    objective(said)[0].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.weight.grad is not None


def rows_of(count: int) -> st.SearchStrategy[Tensor]:
    row = st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5)
    return st.lists(row, min_size=count, max_size=count).map(torch.tensor)


@settings(max_examples=50)
@given(rows_of(3), rows_of(3), st.floats(0.5, 20))
def test_a_divergence_is_the_textbook_s_and_never_negative(
    student: Tensor, teacher: Tensor, temperature: float
) -> None:
    p, q = ((said.double() / temperature).softmax(1) for said in (teacher, student))
    expected = temperature**2 * kl(p, q).mean()
    loss = divergence(student, teacher, temperature=temperature)
    torch.testing.assert_close(loss.double(), expected, atol=1e-3, rtol=1e-4)
    for kind in ("forward", "reverse", "js", "tv", "adaptive"):
        assert divergence(student, teacher, temperature=temperature, kind=kind) > -1e-3  # type: ignore[arg-type]
