"""Losses of language models: against their formulas, and blind to padding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hand_made import built, noise, seen
from torch import Tensor, nn

from edgepress.stages.distill.language import Cosine, HiddenStates, Hybrid, Sequence
from edgepress.stages.distill.losses import make
from edgepress.stages.distill.nouns import Step
from edgepress.stages.distill.selfattention import Attention, AttentionRelation, scores
from edgepress.targets.errors import RecipeError, StageError

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
TOKENS = [tuple(place) for place in MASK.nonzero().tolist()]


def value(term: Any, step: Step) -> Tensor:
    result: Tensor = built(term, step)(step)
    return result


def several(count: int, width: int, *, seed: int = 0) -> list[Tensor]:
    return [noise(3, 4, width, seed=seed + place) for place in range(count)]


def spoiled(features: list[Tensor]) -> list[Tensor]:
    """With other padding."""
    return [torch.where(MASK.unsqueeze(2), one, 9.0) for one in features]


def test_cosine_is_the_mean_over_tokens_that_count() -> None:
    student, teacher = noise(3, 4, 5), noise(3, 4, 5, seed=1)
    by_hand = np.mean([1 - float(F.cosine_similarity(student[t], teacher[t], dim=0)) for t in TOKENS])
    assert float(value(Cosine(), seen(student, teacher, mask=MASK))) == pytest.approx(by_hand, rel=1e-5)


def test_cosine_does_not_change_with_the_length_of_hidden_states() -> None:
    student, teacher = noise(3, 4, 5), noise(3, 4, 5, seed=1)
    torch.testing.assert_close(value(Cosine(), seen(3 * student, teacher)), value(Cosine(), seen(student, teacher)))


def test_hidden_states_are_the_mean_squared_difference_behind_one_linear_layer() -> None:
    student, teacher = several(2, 3), several(2, 5, seed=5)
    step = seen(student, teacher, mask=MASK)
    term = built(HiddenStates(), step)
    (layer,) = term.adapters
    gaps = [(layer(mine[MASK]) - theirs[MASK]).square().mean() for mine, theirs in zip(student, teacher, strict=True)]
    torch.testing.assert_close(term(step), gaps[0] + gaps[1])


def test_hidden_states_of_equal_width_need_no_layer() -> None:
    student, teacher = several(2, 3), several(2, 3, seed=5)
    step = seen(student, teacher)
    assert not list(built(HiddenStates(), step).learned())
    expected = sum(F.mse_loss(mine, theirs) for mine, theirs in zip(student, teacher, strict=True))
    torch.testing.assert_close(value(HiddenStates(), step), expected)


def test_sentences_of_different_lengths_are_refused() -> None:
    with pytest.raises(StageError, match="tokens of one length"):
        built(HiddenStates(), seen(noise(2, 4, 3), noise(2, 5, 3)))


def attended(query: Tensor, key: Tensor, heads: int) -> list[Any]:
    """Scores by hand: [sentence][head] -> (length, length)."""
    width = query.shape[2] // heads
    parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
    return [[(q[:, part] @ k[:, part].T / math.sqrt(width)) for part in parts] for q, k in zip(query, key, strict=True)]


def test_scores_are_scaled_products_of_each_head() -> None:
    query, key = several(2, 6)
    for sentence, by_head in enumerate(attended(query, key, 3)):
        torch.testing.assert_close(scores(query, key, 3)[sentence], torch.stack(by_head))


def test_attention_is_the_mean_squared_difference_of_scores() -> None:
    student, teacher = several(4, 4), several(4, 6, seed=5)
    total = 0.0
    for layer in (0, 2):
        mine = attended(student[layer], student[layer + 1], 2)
        theirs = attended(teacher[layer], teacher[layer + 1], 2)
        gaps = []
        for sentence in range(3):
            length = int(MASK[sentence].sum())
            for head in range(2):
                gap = mine[sentence][head] - theirs[sentence][head]
                gaps += gap[:length, :length].square().flatten().tolist()
        total += float(np.mean(gaps))
    assert float(value(Attention(heads=2), seen(student, teacher, mask=MASK))) == pytest.approx(total, rel=1e-5)


def relation_by_hand(student: list[Tensor], teacher: list[Tensor], sides: list[tuple[int, int]], heads: int) -> float:
    total = 0.0
    for one, other in sides:
        mine, theirs = (attended(side[one], side[other], heads) for side in (student, teacher))
        each = []
        for sentence in range(3):
            length = int(MASK[sentence].sum())
            for head in range(heads):
                q = mine[sentence][head][:length, :length].softmax(1)
                p = theirs[sentence][head][:length, :length].softmax(1)
                each += (p * (p / q).log()).sum(1).tolist()
        total += float(np.mean(each))
    return total / len(sides)


def test_attention_relations_are_divergences_of_queries_keys_and_values() -> None:
    student, teacher = several(3, 4), several(3, 6, seed=5)
    by_hand = relation_by_hand(student, teacher, [(0, 0), (1, 1), (2, 2)], 2)
    step = seen(student, teacher, mask=MASK)
    assert float(value(AttentionRelation(heads=2), step)) == pytest.approx(by_hand, rel=1e-4)
    chosen = AttentionRelation(relations=["attention"], heads=2)
    assert float(value(chosen, step)) == pytest.approx(relation_by_hand(student, teacher, [(0, 1)], 2), rel=1e-4)


def test_attention_probabilities_are_the_attention_relation_of_queries_and_keys() -> None:
    student, teacher = several(3, 4), several(3, 4, seed=5)
    relation = value(AttentionRelation(relations=["attention"], heads=2), seen(student, teacher, mask=MASK))
    layer = seen(student[:2], teacher[:2], mask=MASK)
    torch.testing.assert_close(value(Attention(form="probabilities", heads=2), layer), relation)


def test_relations_do_not_care_how_many_heads_a_network_has() -> None:
    student, teacher = several(3, 10), several(3, 6, seed=5)
    step = seen(student, teacher)
    torch.testing.assert_close(value(AttentionRelation(), step), value(AttentionRelation(heads=2), step))


def test_relations_do_not_change_when_queries_are_rotated_within_a_head() -> None:
    student, teacher = several(3, 4), several(3, 4, seed=5)
    turn = torch.linalg.qr(noise(4, 4))[0]
    one = value(AttentionRelation(heads=1), seen([part @ turn for part in student], teacher))
    torch.testing.assert_close(one, value(AttentionRelation(heads=1), seen(student, teacher)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "taps"),
    [
        ("cosine", {}, 1), ("hidden", {}, 2), ("embeddings", {}, 1), ("attention", {"heads": 2}, 4),
        ("attention", {"heads": 2, "form": "probabilities"}, 2), ("attention_relation", {}, 3),
    ],
)  # fmt: skip
def test_padding_has_no_part_in_it(name: str, options: dict[str, Any], taps: int) -> None:
    student, teacher = several(taps, 4), several(taps, 4, seed=5)
    term = make(name, options)
    clean = value(term, seen(student, teacher, mask=MASK))
    torch.testing.assert_close(term(seen(spoiled(student), spoiled(teacher), mask=MASK)), clean)
    nothing = term(seen(student, teacher, mask=torch.zeros_like(MASK)))
    torch.testing.assert_close(nothing, torch.tensor(0.0))


@pytest.mark.parametrize("size", [0.0, 1e4])
@pytest.mark.parametrize(
    ("name", "options"),
    [("cosine", {}), ("hidden", {}), ("attention_relation", {"relations": ["queries"]})],
)
def test_losses_of_extreme_hidden_states_are_finite(name: str, options: dict[str, Any], size: float) -> None:
    count = 3 if name == "attention_relation" else 1
    student, teacher = [size * one for one in several(count, 4)], [size * one for one in several(count, 6, seed=5)]
    term = built(make(name, options), seen(student, teacher))
    leaf = student[0].clone().requires_grad_()
    result = term(seen([leaf, *student[1:]], teacher, mask=MASK))
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(leaf.grad).all()


class Heads(nn.Module):
    """A network that says how many heads it has."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.add_module("0", nn.Linear(4, 4))


def told(student: int | None, teacher: int | None) -> Step:
    step = seen(several(2, 4), several(2, 4, seed=5))
    networks = [nn.Sequential(nn.Linear(4, 4)) if heads is None else Heads(heads) for heads in (student, teacher)]
    return Step(
        batch=step.batch, student=step.student, teachers=step.teachers, progress=0.0,
        learner=nn.ModuleDict({"a": networks[0]}), models={"teacher": nn.ModuleDict({"a": networks[1]})},
    )  # fmt: skip


def test_the_number_of_heads_is_read_from_the_modules() -> None:
    step = told(2, 2)
    term = Attention()
    assert term._heads(step, ("a.0", "a.0")) == 2
    with pytest.raises(StageError, match=r"3 heads at a\.0 and the teacher 2.*attention_relation"):
        term._heads(told(3, 2), ("a.0", "a.0"))
    with pytest.raises(StageError, match=r"do not say how many heads.*set heads"):
        term._heads(told(None, 2), ("a.0", "a.0"))


def test_taps_that_are_no_attention_are_refused() -> None:
    with pytest.raises(StageError, match="queries, keys and values, layer by layer; 2 are given"):
        built(AttentionRelation(), seen(several(2, 4), several(2, 4)))
    with pytest.raises(StageError, match=r"token by token.*0 and 0"):
        built(Attention(heads=2), seen([noise(2, 3, 4)] * 2, [noise(2, 5, 4)] * 2))


def said(student: Tensor, teacher: Tensor, **rest: Any) -> Step:
    """Answers of sentences, and what the classifier is given."""
    return seen(noise(3, 4, 5), noise(3, 4, 5), logits=(student, teacher), **rest)


WORDS = torch.randint(0, 6, (3, 4), generator=torch.Generator().manual_seed(0))


def test_sequence_distillation_is_minus_the_log_of_a_sentence() -> None:
    student, teacher = noise(3, 4, 6), noise(3, 4, 6, seed=1)
    likely = -student.log_softmax(2)
    chosen = likely.gather(2, teacher.argmax(2, keepdim=True)).squeeze(2)
    sentences = torch.stack([chosen[b, : int(MASK[b].sum())].sum() for b in range(3)])
    step = said(student, teacher, mask=MASK)
    torch.testing.assert_close(value(Sequence(per_token=False), step), sentences.mean())
    torch.testing.assert_close(value(Sequence(), step), (sentences / MASK.sum(1)).mean())


def test_sequence_distillation_can_follow_what_the_teacher_has_written() -> None:
    student, teacher = noise(3, 4, 6), noise(3, 4, 6, seed=1)
    written = WORDS.masked_fill(~MASK, -100)
    expected = torch.stack(
        [F.cross_entropy(student[b][MASK[b]], WORDS[b][MASK[b]], reduction="sum") for b in range(3)]
    ).mean()
    step = said(student, teacher, y=written)
    torch.testing.assert_close(value(Sequence(targets="labels", per_token=False), step), expected)


def test_a_gate_begins_in_the_middle_of_both_losses() -> None:
    student, teacher = noise(3, 4, 6), noise(3, 4, 6, seed=1)
    step = said(student, teacher, mask=MASK)
    p, q = teacher.softmax(2), student.softmax(2)
    each = (p * (p / q).log()).sum(2)
    tokens = torch.stack([each[b][MASK[b]].mean() for b in range(3)]).mean()
    torch.testing.assert_close(value(Hybrid(), step), (tokens + value(Sequence(), step)) / 2)


def test_a_gate_learns_and_keeps_both_losses() -> None:
    student, teacher = noise(3, 4, 6), 4 * noise(3, 4, 6, seed=1)
    step = said(student, teacher)
    term = built(Hybrid(floor=0.2), step)
    optimizer = torch.optim.SGD(term.learned(), lr=50.0)
    before = float(term(step).detach())
    for _ in range(50):
        optimizer.zero_grad()
        term(step).backward()
        optimizer.step()
    assert float(term(step).detach()) < before
    share = term.share(step)
    assert ((share > 0.199) & (share < 0.801)).all()
    assert (share - 0.5).abs().max() > 0.2


def test_the_student_does_not_learn_to_please_its_gate() -> None:
    student, teacher = noise(3, 4, 6), noise(3, 4, 6, seed=1)
    term = built(Hybrid(), said(student, teacher))
    nn.init.normal_(term.gate.weight)
    features = noise(3, 4, 5).requires_grad_()
    term(seen(features, noise(3, 4, 5), logits=(student.requires_grad_(), teacher))).backward()
    assert features.grad is None
    assert student.grad is not None


@pytest.mark.parametrize("name", ["sequence", "hybrid"])
def test_sentences_are_needed(name: str) -> None:
    with pytest.raises(StageError, match=r"each token.*\(3, 6\)"):
        built(make(name, {}), seen(noise(3, 5), noise(3, 5), logits=(noise(3, 6), noise(3, 6))))
    with pytest.raises(StageError, match="needs labels"):
        built(make(name, {"targets": "labels"}), said(noise(3, 4, 6), noise(3, 4, 6)))


@pytest.mark.parametrize("name", ["sequence", "hybrid"])
def test_losses_of_extreme_answers_are_finite(name: str) -> None:
    student, teacher = (1e4 * noise(3, 4, 6)).requires_grad_(), 1e4 * noise(3, 4, 6, seed=1)
    step = said(student, teacher, mask=MASK)
    result = built(make(name, {}), step)(step)
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(student.grad).all()


def test_options_that_make_no_sense_are_refused() -> None:
    for name, options in (
        ("hybrid", {"floor": 0.5}), ("sequence", {"targets": "beam"}), ("attention", {"form": "raw"}),
        ("attention_relation", {"relations": ["hidden"]}), ("attention_relation", {"relations": []}),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=name):
            make(name, options)
