"""The losses on answers against their formulas, one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import kl, logits, told, value
from torch import Tensor

from edgepress.stages.distill.decoupled import CorrelationAware, Decoupled, take_apart
from edgepress.stages.distill.losses import make
from edgepress.stages.distill.response import divergence, each_divergence
from edgepress.stages.distill.temperature import CurriculumTemperature
from edgepress.stages.distill.virtual import rectified
from edgepress.targets.errors import RecipeError, StageError

LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])


def pair() -> tuple[Tensor, Tensor]:
    return logits(7, 5), logits(7, 5, seed=1)


def run(name: str, **options: object) -> Tensor:
    student, teacher = pair()
    return value(make(name, options), told(student, teacher, y=LABELS))


def test_logit_regression_is_the_mean_of_squares_or_of_absolute_values() -> None:
    student, teacher = pair()
    torch.testing.assert_close(run("logits"), ((student - teacher) ** 2).mean())
    torch.testing.assert_close(run("logits", distance="l1"), (student - teacher).abs().mean())


def test_a_hard_label_is_the_class_that_the_teacher_chooses() -> None:
    student, teacher = pair()
    q = student.softmax(1)
    expected = torch.stack([-q[row, teacher[row].argmax()].log() for row in range(7)]).mean()
    torch.testing.assert_close(run("hard"), expected)


def test_dkd_splits_the_belief_in_the_label_from_the_rest() -> None:
    student, teacher = pair()
    expected = []
    for s, t, y in zip((student / 4).softmax(1), (teacher / 4).softmax(1), LABELS, strict=True):
        others = [c for c in range(5) if c != y]
        binary = kl(torch.stack([t[y], 1 - t[y]]), torch.stack([s[y], 1 - s[y]]))
        expected.append(2 * binary + 3 * kl(t[others] / (1 - t[y]), s[others] / (1 - s[y])))
    torch.testing.assert_close(run("dkd", alpha=2.0, beta=3.0), 16 * torch.stack(expected).mean())


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_the_parts_of_a_divergence_weighed_by_their_masses_are_the_whole(extra: int) -> None:
    student, teacher = pair()
    group = F.one_hot(LABELS, 5).bool()
    group = group.scatter(1, teacher.topk(extra, dim=1).indices, value=True)  # 0: dkd's groups; more: cakd's
    parts = take_apart(student, teacher, group, temperature=3.0)
    whole = parts.between + parts.mass * parts.inside + (1 - parts.mass) * parts.outside
    torch.testing.assert_close(whole, each_divergence(student, teacher, temperature=3.0))


def test_dkd_with_one_minus_the_teacher_s_belief_for_beta_is_kd() -> None:
    student, teacher = pair()
    for row in range(7):
        beta = 1 - float((teacher[row] / 4).softmax(0)[LABELS[row]])
        one = told(student[row : row + 1], teacher[row : row + 1], y=LABELS[row : row + 1])
        loss = value(Decoupled(alpha=1.0, beta=beta), one)
        torch.testing.assert_close(loss, divergence(student[row], teacher[row], temperature=4.0))


def test_cakd_puts_the_label_and_the_likely_classes_in_the_strong_group() -> None:
    student, teacher = logits(1, 5), torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]])
    s, t = (student / 4).softmax(1)[0], (teacher / 4).softmax(1)[0]
    strong, weak = [0, 1, 3], [2, 4]  # the two likeliest, and the label 3
    s_mass, t_mass = s[strong].sum(), t[strong].sum()
    expected = (
        kl(torch.stack([t_mass, 1 - t_mass]), torch.stack([s_mass, 1 - s_mass]))
        + 2 * kl(t[strong] / t_mass, s[strong] / s_mass)
        + 3 * kl(t[weak] / (1 - t_mass), s[weak] / (1 - s_mass))
    )
    loss = value(CorrelationAware(strong=2.0, weak=3.0), told(student, teacher, y=torch.tensor([3])))
    torch.testing.assert_close(loss, 16 * expected)


def test_cakd_without_weak_classes_is_refused() -> None:
    with pytest.raises(StageError, match="leave nothing of 3 classes"):
        CorrelationAware(count=2).build(told(logits(2, 3), logits(2, 3), y=torch.tensor([0, 1])))


def test_normkd_has_a_temperature_for_each_sample() -> None:
    student, teacher = pair()
    expected = []
    for s, t in zip(student, teacher, strict=True):
        mine, theirs = 2 * s.std(), 2 * t.std()
        expected.append(theirs**2 * kl((t / theirs).softmax(0), (s / mine).softmax(0)))
    torch.testing.assert_close(run("normkd"), torch.stack(expected).mean())


def test_lskd_is_kd_of_z_scores() -> None:
    student, teacher = pair()
    s, t = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (student, teacher))
    torch.testing.assert_close(run("lskd"), 4 * kl((t / 2).softmax(1), (s / 2).softmax(1)).mean())
    torch.testing.assert_close(run("lskd"), run("kd", temperature=2.0, standardise=True))


def test_lskd_does_not_see_an_affine_change_of_the_logits() -> None:
    student, teacher = pair()
    changed = value(make("lskd", {}), told(3.7 * student - 5, 0.2 * teacher + 1))
    torch.testing.assert_close(changed, run("lskd"))


def test_luminet_standardises_each_class_over_the_batch() -> None:
    student, teacher = (z.numpy().astype(np.float64) for z in pair())
    s, t = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) / 4 for z in (student, teacher))
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (t, s))
    assert float(run("luminet")) == pytest.approx(33**2 * float((p * np.log(p / q)).sum(1).mean()), rel=1e-4)


def test_dist_is_one_minus_the_correlations_of_rows_and_of_columns() -> None:
    student, teacher = pair()
    p, q = ((z / 4).softmax(1).numpy().astype(np.float64) for z in (teacher, student))
    rows = np.mean([np.corrcoef(p[i], q[i])[0, 1] for i in range(7)])
    columns = np.mean([np.corrcoef(p[:, i], q[:, i])[0, 1] for i in range(5)])
    assert float(run("dist", beta=2.0, gamma=3.0)) == pytest.approx(16 * (2 * (1 - rows) + 3 * (1 - columns)), rel=1e-4)


def test_dist_does_not_see_an_affine_change_of_a_row_of_beliefs() -> None:
    _, teacher = pair()
    p = (teacher / 4).softmax(1)
    share = torch.linspace(0.2, 0.9, 7).unsqueeze(1)
    student = 4 * (share * p + (1 - share) / 5).log()  # still beliefs: between the teacher's and knowing nothing
    loss = value(make("dist", {"gamma": 0.0}), told(student, teacher))
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-4, rtol=0)


def test_clkd_compares_rows_columns_and_correlations_between_classes() -> None:
    student, teacher = pair()
    columns = 16 * kl((teacher.T / 4).softmax(1), (student.T / 4).softmax(1)).mean()
    between = [torch.from_numpy(np.corrcoef(z.numpy(), rowvar=False)).float() for z in (student, teacher)]
    torch.testing.assert_close(run("clkd", classes=0.0, correlation=0.0), run("kd"))
    torch.testing.assert_close(run("clkd", instance=0.0, correlation=0.0), columns)
    expected = (between[0] - between[1]).square().mean()
    torch.testing.assert_close(run("clkd", instance=0.0, classes=0.0), expected, atol=1e-5, rtol=1e-4)


def test_mlkd_compares_answers_samples_and_classes_at_every_temperature() -> None:
    student, teacher = pair()
    expected = torch.zeros(())
    for temperature in (2.0, 5.0):
        p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
        samples = sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for i in range(7) for j in range(7)) / 7
        classes = sum((p[:, i] @ p[:, j] - q[:, i] @ q[:, j]) ** 2 for i in range(5) for j in range(5)) / 5
        expected = expected + temperature**2 * kl(p, q).mean() + samples + classes
    torch.testing.assert_close(run("mlkd", temperatures=[2.0, 5.0]), expected)


def test_ctkd_starts_as_kd_at_its_first_temperature() -> None:
    first = 1 + 20 / (1 + math.exp(-1))
    torch.testing.assert_close(run("ctkd"), run("kd", temperature=first))


def test_ctkd_learns_a_temperature_that_makes_the_loss_larger() -> None:
    student, teacher = pair()
    gradients = []
    for epoch in (0.0, 5.0, 10.0, 50.0):
        term = CurriculumTemperature()
        term(told(student, teacher, epoch=epoch)).backward()
        assert term.theta.grad is not None
        gradients.append(float(term.theta.grad))
    free = torch.ones(1, requires_grad=True)
    divergence(student, teacher, temperature=1 + 20 * free.sigmoid()).backward()
    assert free.grad is not None
    expected = [-strength * float(free.grad) for strength in (0.0, 0.5, 1.0, 1.0)]
    assert gradients == pytest.approx(expected, abs=1e-9, rel=1e-4)


def test_ctkd_leaves_the_student_s_gradient_as_it_is() -> None:
    student, teacher = pair()
    grads = []
    for epoch in (0.0, 20.0):
        leaf = student.clone().requires_grad_()
        CurriculumTemperature()(told(leaf, teacher, epoch=epoch)).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_tfkd_imitates_a_teacher_who_is_almost_sure() -> None:
    student, _ = pair()
    virtual = torch.full((7, 5), 0.01 / 4)
    virtual[torch.arange(7), LABELS] = 0.99
    p = virtual ** (1 / 20)
    p = p / p.sum(1, keepdim=True)
    torch.testing.assert_close(run("tfkd"), 400 * kl(p, (student / 20).softmax(1)).mean(), atol=1e-4, rtol=1e-3)


def test_tfkd_at_temperature_1_has_the_gradient_of_label_smoothing() -> None:
    student = pair()[0].requires_grad_()
    value(make("tfkd", {"certainty": 0.8, "temperature": 1.0}), told(student, student, y=LABELS)).backward()
    plain = student.detach().clone().requires_grad_()
    F.cross_entropy(plain, LABELS, label_smoothing=0.25).backward()  # 0.75 + 0.25 / 5 = 0.8 for the label
    torch.testing.assert_close(student.grad, plain.grad)


def test_a_certainty_of_1_is_refused() -> None:
    with pytest.raises(RecipeError, match="between 0 and 1"):
        make("tfkd", {"certainty": 1.0})


def test_a_wrong_teacher_is_set_right_by_exchanging_two_logits() -> None:
    teacher = torch.tensor([[3.0, 1.0, 0.5], [3.0, 1.0, 0.5]])
    right = rectified(teacher, torch.tensor([2, 0]))
    assert right.tolist() == [[0.5, 1.0, 3.0], [3.0, 1.0, 0.5]]
    student = logits(2, 3)
    loss = value(make("drkd", {}), told(student, teacher, y=torch.tensor([2, 0])))
    torch.testing.assert_close(loss, divergence(student, right, temperature=4.0))


def test_skd_starts_as_kd_and_its_simplifier_learns() -> None:
    student, teacher = pair()
    term = make("skd", {})
    loss = value(term, told(student, teacher))
    torch.testing.assert_close(loss, run("kd"))
    optimizer = torch.optim.SGD(term.learned(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        term(told(student, teacher)).backward()
        optimizer.step()
    assert term(told(student, teacher)) < 0.9 * loss


def test_uld_compares_sorted_beliefs_whatever_the_classes() -> None:
    student, teacher = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.1, 0.6, 0.05, 0.25]]).log()
    loss = value(make("uld", {}), told(student, teacher))
    torch.testing.assert_close(loss, torch.tensor(0.1 + 0.05 + 0.1 + 0.05))


def test_uld_does_not_see_the_order_of_classes() -> None:
    student, teacher = pair()
    shuffled = told(student[:, [4, 2, 0, 1, 3]], teacher[:, [1, 0, 3, 2, 4]])
    torch.testing.assert_close(value(make("uld", {}), shuffled), run("uld"))


def test_uld_of_sequences_of_other_lengths_is_refused() -> None:
    with pytest.raises(StageError, match="sequences of one length"):
        make("uld", {}).build(told(logits(2, 3, 5), logits(2, 4, 9)))
