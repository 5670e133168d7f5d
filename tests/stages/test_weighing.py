"""How much each of several teachers counts: formulas, bounds, and what is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nets import context, net
from torch import Tensor

from edgepress.stages.distill.nouns import Batch, Objective, Out, Step, Weighted
from edgepress.stages.distill.response import KnowledgeDistillation, divergence
from edgepress.stages.distill.weighing import Camkd, Stacking, confidence, entropy, weigher_for
from edgepress.stages.lesson import Lesson
from edgepress.stages.teaching import teach
from edgepress.targets.errors import StageError


def outs(count: int, *, seed: int = 0, scale: float = 1.0, shape: tuple[int, ...] = (6, 5)) -> list[Out]:
    generator = torch.Generator().manual_seed(seed)
    return [Out(logits=scale * torch.randn(shape, generator=generator)) for _ in range(count)]


def batch(shape: tuple[int, ...] = (6,), classes: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(9)
    return Batch(x=torch.zeros(shape[0], 1), y=torch.randint(classes, shape, generator=generator))


@example(count=2, seed=67, scale=1e4)  # entropies below the smallest normal number
@settings(max_examples=30)
@given(count=st.integers(1, 5), seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 1.0, 1e4]))
@pytest.mark.parametrize("weigh", [confidence, entropy])
def test_the_weights_of_a_sample_add_up_to_one(weigh: Any, count: int, seed: int, scale: float) -> None:
    trust = weigh(outs(count, seed=seed, scale=scale), batch())
    assert trust.shape == (count, 6)
    assert (trust >= 0).all()
    torch.testing.assert_close(trust.sum(0), torch.ones(6))


def test_confidence_is_the_formula_of_ca_mkd() -> None:
    answers, samples = outs(3), batch()
    assert samples.y is not None
    losses = torch.stack([F.cross_entropy(one.logits, samples.y, reduction="none") for one in answers])
    by_hand = (1 - losses.exp() / losses.exp().sum(0)) / 2
    torch.testing.assert_close(confidence(answers, samples), by_hand)


def test_who_is_confident_and_right_counts_most_and_who_is_confident_and_wrong_least() -> None:
    right, unsure, wrong = torch.eye(4) * 10, torch.zeros(4, 4), torch.eye(4).roll(1, 1) * 10
    trust = confidence([Out(logits=one) for one in (unsure, right, wrong)], Batch(x=torch.zeros(4), y=torch.arange(4)))
    assert (trust[1] > trust[0]).all()
    assert (trust[0] > trust[2]).all()
    torch.testing.assert_close(trust[2], torch.zeros(4), atol=1e-3, rtol=0)


def test_a_single_teacher_counts_fully() -> None:
    torch.testing.assert_close(confidence(outs(1), batch()), torch.ones(1, 6))
    torch.testing.assert_close(entropy(outs(1), batch()), torch.ones(1, 6))


def test_who_is_sure_counts_most_by_entropy_without_labels() -> None:
    sure, unsure = torch.eye(4) * 10, torch.eye(4)
    samples = Batch(x=torch.zeros(4))
    trust = entropy([Out(logits=unsure), Out(logits=sure)], samples)
    spoken = [one.log_softmax(1) for one in (unsure, sure)]
    each = torch.stack([-(one.exp() * one).sum(1) for one in spoken])
    torch.testing.assert_close(trust, (1 - each / each.sum(0)))
    assert (trust[1] > 0.9).all()


def test_positions_that_do_not_count_have_no_say() -> None:
    answers = outs(2, shape=(3, 4, 5))
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()
    samples = replace(batch((3, 4)), mask=mask)
    spoilt = [replace(one, logits=one.logits.masked_fill(~mask[..., None], 50.0)) for one in answers]
    for weigh in (confidence, entropy):
        torch.testing.assert_close(weigh(spoilt, samples), weigh(answers, samples))


def test_dense_answers_are_weighed_by_the_mean_over_their_pixels() -> None:
    answers, samples = outs(2, shape=(3, 5, 2, 2)), batch((3, 2, 2))
    assert samples.y is not None
    losses = torch.stack([F.cross_entropy(one.logits, samples.y, reduction="none").mean((1, 2)) for one in answers])
    torch.testing.assert_close(confidence(answers, samples), 1 - losses.softmax(0))


def step(answers: list[Out], samples: Batch, trust: Tensor | None = None) -> Step:
    student = Out(logits=torch.zeros_like(answers[0].logits), feats={"f": torch.ones(6, 3, requires_grad=True)})
    teachers = {f"t{place}": one for place, one in enumerate(answers)}
    return Step(batch=samples, student=student, teachers=teachers, progress=0.0, trust=trust)


def test_stacking_is_the_loss_of_the_weighted_mixture() -> None:
    answers, samples = outs(3), batch()
    term = Stacking()
    term.build(step(answers, samples))
    with torch.no_grad():
        term.preference.copy_(torch.tensor([0.0, 0.1, -0.1]))
    weights = torch.tensor([0.0, 1.0, -1.0]).softmax(0)
    mixture = sum(w * one.logits.softmax(1) for w, one in zip(weights, answers, strict=True))
    assert samples.y is not None
    assert isinstance(mixture, Tensor)
    torch.testing.assert_close(term(step(answers, samples)), F.nll_loss(mixture.log(), samples.y))
    torch.testing.assert_close(term.weigh(answers, samples), weights[:, None].expand(3, 6))


def test_learned_weights_find_the_teacher_that_is_right() -> None:
    samples = Batch(x=torch.zeros(6), y=torch.arange(6) % 5)
    assert samples.y is not None
    right = Out(logits=3 * F.one_hot(samples.y, 5).float())
    answers = [*outs(2), right]
    term = Stacking()
    term.build(step(answers, samples))
    optimizer = torch.optim.AdamW(term.learned(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        term(step(answers, samples)).backward()
        optimizer.step()
    assert term.weights()[2] > 0.8


def test_weights_that_need_labels_are_refused_where_there_are_none() -> None:
    objective = Objective([Weighted(name="kd", term=KnowledgeDistillation(), weight=1.0)])
    with pytest.raises(StageError, match="no labels. Use entropy"):
        weigher_for("confidence", objective, Batch(x=torch.zeros(2)))
    assert weigher_for("entropy", objective, Batch(x=torch.zeros(2))) is entropy
    assert weigher_for("alike", objective, batch()) is None


def test_hints_are_weighed_sample_by_sample() -> None:
    answers = [replace(one, feats={"g": torch.randn(6, 3, generator=torch.Generator().manual_seed(k))})
               for k, one in enumerate(outs(2))]  # fmt: skip
    trust = torch.rand(2, 6)
    looked = step(answers, batch(), trust)
    term = Camkd()
    term.pairs = (("f", "g"),)
    term.build(looked.only("t1"))
    objective = Objective([Weighted(name="camkd@t1", term=term, weight=2.0, teacher="t1")])
    total, _ = objective(looked)
    error = (looked.student.feats["f"] - answers[1].feats["g"]).square().mean(1)
    torch.testing.assert_close(total, 2 * (trust[1] * error).mean())


def test_the_divergence_from_the_mean_answer_is_at_most_the_mean_divergence() -> None:
    for seed in range(10):
        student = outs(1, seed=100 + seed)[0].logits
        answers = [one.logits for one in outs(4, seed=seed, scale=2.0)]
        mean = torch.stack([one.softmax(1) for one in answers]).mean(0).log()
        apart = torch.stack([divergence(student, one, temperature=1.0) for one in answers]).mean()
        assert divergence(student, mean, temperature=1.0) <= apart + 1e-6


def test_a_teacher_that_is_wrong_loses_its_say_in_a_training(tmp_path: Path) -> None:
    good = net(seed=3)
    teach(good, Lesson(epochs=8, batch_size=32, lr=3e-3), context(tmp_path / "good"), teacher=None)
    lesson = Lesson(epochs=2, batch_size=32, ce=0.0, kd=1.0, weigh="learned", check_teacher=False, lr=3e-3)
    trained, _ = teach(net(), lesson, context(tmp_path / "a"), teacher={"bad": net(seed=9), "good": good})
    assert trained.curves["stacking"][1] < trained.curves["stacking"][0]
