"""A generalist and specialists as teachers."""

from __future__ import annotations

import pytest
import torch
from answers import kl, logits, told, value

from edgepress.stages.distill.response import divergence
from edgepress.stages.distill.specialists import Specialists
from edgepress.targets.errors import StageError

KNOWN = [1, 3]


def generalist() -> torch.Tensor:
    said = logits(4, 5, seed=1)
    said[[0, 1], [1, 3]] += 20  # the first two samples belong to the specialist
    said[[2, 3], [0, 4]] += 20
    return said


def test_a_specialist_speaks_of_its_own_classes_and_of_the_dustbin() -> None:
    student, special = logits(4, 5), logits(4, 5, seed=2)
    p, q = (special / 4).softmax(1), (student / 4).softmax(1)
    collapsed = [torch.stack([b[:, 1], b[:, 3], b[:, [0, 2, 4]].sum(1)], 1) for b in (p, q)]
    own = torch.where(torch.tensor([True, True, False, False]), 16 * kl(collapsed[0], collapsed[1]), 0.0).mean()
    loss = value(Specialists(classes={"cats": KNOWN}), told(student, {"all": generalist(), "cats": special}))
    torch.testing.assert_close(loss, divergence(student, generalist(), temperature=4.0) + own)


def test_a_specialist_may_answer_for_its_classes_and_a_dustbin_alone() -> None:
    student, special = logits(4, 5), logits(4, 3, seed=2)
    p, q = (special / 4).softmax(1), (student / 4).softmax(1)
    mine = torch.stack([q[:, 1], q[:, 3], q[:, [0, 2, 4]].sum(1)], 1)
    own = torch.where(torch.tensor([True, True, False, False]), 16 * kl(p, mine), 0.0).mean()
    loss = value(Specialists(classes={"cats": KNOWN}), told(student, {"all": generalist(), "cats": special}))
    torch.testing.assert_close(loss, divergence(student, generalist(), temperature=4.0) + own)


def test_a_student_that_satisfies_everyone_has_nothing_to_learn() -> None:
    said = logits(4, 5)
    loss = value(Specialists(classes={"cats": KNOWN}), told(said, {"all": said.clone(), "cats": said.clone()}))
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("classes", "teachers", "words"),
    [
        ({"cat": [1]}, ("all", "cats"), "did you mean 'cats'"),
        ({"cats": [9]}, ("all", "cats"), "class 9 of 5"),
        ({"all": [0], "cats": [1]}, ("all", "cats"), "a teacher of all classes"),
    ],
)
def test_specialists_that_do_not_fit_are_refused(
    classes: dict[str, list[int]], teachers: tuple[str, ...], words: str
) -> None:
    step = told(logits(4, 5), {name: logits(4, 5) for name in teachers})
    with pytest.raises(StageError, match=words):
        Specialists(classes=classes).build(step)
