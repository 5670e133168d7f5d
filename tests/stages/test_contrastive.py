"""Contrastive losses: minimal for the right pairs, equal to their closed forms, and remembered between runs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hand_made import built, gradient, noise, seen
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from edgepress.stages.distill import bank
from edgepress.stages.distill.bank import Bank
from edgepress.stages.distill.contrastive import InBatchContrast, MemoryContrast, embedding, info_nce, noise_contrast
from edgepress.stages.distill.losses import make
from edgepress.stages.distill.transport import Critic, WassersteinContrast, sinkhorn
from edgepress.targets.errors import StageError

NAMES = ("crd", "crd_inbatch", "wcord")
INDEX = torch.arange(6)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(noise(*shape, seed=seed))


def crd(student: Tensor, teacher: Tensor, **options: float) -> MemoryContrast:
    """With heads that change nothing."""
    term = built(MemoryContrast(dim=student.shape[1], **options), seen(student, teacher, index=INDEX[: len(student)]))
    term.mine = term.theirs = nn.Identity()
    return term


@given(st.permutations(range(6)), st.integers(0, 100))
@settings(max_examples=40)
def test_in_batch_contrast_is_least_for_aligned_pairs(order: list[int], seed: int) -> None:
    teacher = unit(6, 4, seed=seed)
    aligned = info_nce(teacher, teacher, temperature=0.07)
    assert info_nce(teacher[order], teacher, temperature=0.07) >= aligned - 1e-6


def test_in_batch_contrast_has_a_closed_form_for_two_samples() -> None:
    student, teacher = unit(2, 3), unit(2, 3, seed=1)
    term = built(InBatchContrast(dim=3, temperature=0.5, symmetric=False), seen(student, teacher))
    term.mine = term.theirs = nn.Identity()
    scores = (student @ teacher.T / 0.5).tolist()
    by_hand = sum(math.log(1 + math.exp(scores[i][1 - i] - scores[i][i])) for i in (0, 1)) / 2
    assert float(term(seen(student, teacher))) == pytest.approx(by_hand, rel=1e-5)


def test_the_symmetric_form_does_not_care_who_is_the_student() -> None:
    student, teacher = noise(5, 3), noise(5, 3, seed=1)
    term = built(InBatchContrast(dim=3), seen(student, teacher))
    term.mine = term.theirs = nn.Identity()
    torch.testing.assert_close(term(seen(student, teacher)), term(seen(teacher, student)))


def test_samples_of_the_same_class_are_no_negatives() -> None:
    student, teacher, labels = unit(4, 3), unit(4, 3, seed=1), torch.tensor([0, 0, 1, 2])
    term = built(InBatchContrast(dim=3, temperature=1.0, symmetric=False), seen(student, teacher))
    term.mine = term.theirs = nn.Identity()
    scores = (student @ teacher.T).exp()
    rivals = torch.stack([scores[i, labels != labels[i]].sum() + scores[i, i] for i in range(4)])
    torch.testing.assert_close(
        term(seen(student, teacher, y=labels)), -(scores.diagonal() / rivals).log().mean(), rtol=1e-5, atol=1e-6
    )
    term.other_class = False
    torch.testing.assert_close(term(seen(student, teacher, y=labels)), term(seen(student, teacher)))


def test_a_batch_of_one_class_has_nothing_to_contrast() -> None:
    student, teacher = noise(4, 3), noise(4, 5, seed=1)
    term = built(InBatchContrast(), seen(student, teacher))
    result = term(seen(student, teacher, y=torch.zeros(4, dtype=torch.long)))
    torch.testing.assert_close(result, torch.tensor(0.0))


def test_noise_contrast_has_a_closed_form_for_one_negative() -> None:
    positive, negative = 3.0, 0.4
    by_hand = -math.log(positive / (positive + 1)) - math.log(1 / (negative + 1))
    value = noise_contrast(
        torch.tensor([math.log(positive)]), torch.tensor([[math.log(negative)]]), torch.tensor([[True]])
    )
    assert float(value) == pytest.approx(by_hand)


def test_noise_contrast_counts_only_what_it_is_told_to() -> None:
    positive, negatives = noise(3), noise(3, 4, seed=1)
    counts = torch.tensor([[1, 1, 0, 0]] * 3, dtype=torch.bool)
    torch.testing.assert_close(
        noise_contrast(positive, negatives, counts),
        noise_contrast(positive, negatives[:, :2], counts[:, :2]),
    )


def test_the_first_batch_of_crd_is_the_published_formula() -> None:
    student, teacher, tau = unit(6, 4), unit(6, 4, seed=1), 0.5
    term = crd(student, teacher, temperature=tau)
    torch.manual_seed(3)
    value = term(seen(student, teacher, index=INDEX))
    torch.manual_seed(3)
    remembered = {"students": F.normalize(torch.randn(6, 4)), "teachers": F.normalize(torch.randn(6, 4))}
    by_hand, many, count = 0.0, 5, 6
    for anchor, partner, others in (
        (student, teacher, remembered["teachers"]),
        (teacher, student, remembered["students"]),
    ):
        pairs = ((anchor * partner).sum(1) / tau).exp()
        rivals = (anchor @ others.T / tau).exp()[~torch.eye(6, dtype=torch.bool)].view(6, 5)
        z = torch.cat([pairs.unsqueeze(1), rivals], 1).mean() * count
        h, h_rival, noise_share = pairs / z, rivals / z, many / count
        by_hand += float(-(h / (h + noise_share)).log().sum() / 6)
        by_hand += float(-(noise_share / (h_rival + noise_share)).log().sum() / 6)
    assert float(value) == pytest.approx(by_hand, rel=1e-4)


def test_crd_is_least_when_the_student_is_where_its_teacher_is() -> None:
    teacher = unit(6, 8, seed=1)
    term = crd(teacher, teacher)
    for _ in range(20):  # until the memory holds what the networks say
        aligned = term(seen(teacher, teacher, index=INDEX))
    for seed in range(5):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        if (order != INDEX).any():
            assert term(seen(teacher[order], teacher, index=INDEX)) > aligned


def test_the_memory_moves_towards_what_the_networks_say() -> None:
    student, teacher = unit(6, 4), unit(6, 4, seed=1)
    term = crd(student, teacher, momentum=0.25)
    term(seen(student, teacher, index=INDEX))
    before = term.students.rows.clone()
    later = unit(6, 4, seed=5)
    term(seen(later, teacher, index=INDEX))
    torch.testing.assert_close(term.students.rows, F.normalize(0.25 * before + 0.75 * later))


def test_crd_leaves_out_negatives_of_the_same_class() -> None:
    student, teacher = unit(4, 3), unit(4, 3, seed=1)
    labels = torch.zeros(4, dtype=torch.long)
    term = crd(student, teacher)
    term(seen(student, teacher, y=labels, index=INDEX[:4]))
    assert term.students.labels.tolist() == [0, 0, 0, 0]
    alone = noise_contrast(
        (student * teacher).sum(1) / term.temperature - term.log_mean[0],
        torch.zeros(4, 1),
        torch.zeros(4, 1, dtype=torch.bool),
    )
    assert torch.isfinite(term(seen(student, teacher, y=labels, index=INDEX[:4])))
    other = noise_contrast(
        (student * teacher).sum(1) / term.temperature - term.log_mean[1],
        torch.zeros(4, 1),
        torch.zeros(4, 1, dtype=torch.bool),
    )
    torch.testing.assert_close(term(seen(student, teacher, y=labels, index=INDEX[:4])), alone + other)


def test_many_samples_are_drawn_from() -> None:
    student, teacher = noise(6, 4), noise(6, 5, seed=1)
    term = built(MemoryContrast(dim=3, negatives=10), seen(student, teacher))
    index = torch.tensor([0, 5, 40, 99, 7, 3])
    gradient(term, student, teacher, index=index)
    assert len(term.students) == len(term.teachers) == 100
    assert len(term._draw(torch.device("cpu"))) == 10


def test_crd_survives_being_saved_and_loaded() -> None:
    student, teacher = noise(6, 4), noise(6, 5, seed=1)
    one, two = (built(MemoryContrast(dim=3), seen(student, teacher)) for _ in range(2))
    one(seen(student, teacher, index=INDEX))
    two.load_state_dict(one.state_dict())
    step = seen(student, teacher, index=INDEX)
    torch.testing.assert_close(two(step), one(step))


def test_a_memory_that_does_not_fit_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "available_mb", lambda: 100.0)
    with pytest.raises(StageError, match=r"1000000 samples x 128 numbers takes 488 MiB, and 100 MiB are free"):
        Bank(width=128).reserve(1_000_000)


def test_several_embeddings_cannot_be_contrasted_at_once() -> None:
    step = seen([noise(2, 3), noise(2, 3)], [noise(2, 3), noise(2, 3)])
    with pytest.raises(StageError, match="one pair of taps, not 2"):
        built(InBatchContrast(), step)


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4, 4), (5, 7, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_vectors_maps_and_tokens_can_be_contrasted(name: str, shape: tuple[int, ...]) -> None:
    student, teacher = noise(*shape), noise(*shape, seed=1)
    term = built(make(name, {"dim": 4}), seen(student, teacher))
    assert gradient(term, student, teacher, index=INDEX[:5]).abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0.0, 1e4])
def test_contrasts_of_extreme_features_are_finite(name: str, size: float) -> None:
    student, teacher = size * noise(5, 3), size * noise(5, 4, seed=1)
    found = gradient(built(make(name, {}), seen(student, teacher)), student, teacher, index=INDEX[:5])
    assert found.isfinite().all()


def test_tokens_that_do_not_count_are_not_in_the_mean() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [100.0]], [[1.0], [1.0], [1.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]], dtype=torch.bool)
    assert embedding(tokens, mask).flatten().tolist() == [2.0, 0.0]


def test_sinkhorn_moves_equal_masses() -> None:
    plan = sinkhorn(noise(5, 7).abs(), blur=0.1, rounds=200)
    torch.testing.assert_close(plan.sum(0), torch.full((7,), 1 / 7))
    torch.testing.assert_close(plan.sum(1), torch.full((5,), 1 / 5), rtol=1e-3, atol=1e-4)


def test_sinkhorn_with_little_blur_is_the_best_assignment() -> None:
    cost = noise(6, 6).abs()
    plan = sinkhorn(cost, blur=0.002, rounds=2000)
    rows, columns = linear_sum_assignment(cost.numpy())
    assert float((plan * cost).sum()) == pytest.approx(float(cost[rows, columns].mean()), rel=1e-3)


def test_the_local_term_is_0_for_a_student_with_the_teachers_embeddings() -> None:
    features = unit(6, 8)
    term = built(WassersteinContrast(dim=8, global_weight=0.0, local_weight=1.0, blur=0.005), seen(features, features))
    term.mine = term.theirs = nn.Identity()
    torch.testing.assert_close(term(seen(features, features)), torch.tensor(0.0), atol=1e-3, rtol=0)
    assert term(seen(unit(6, 8, seed=4), features)) > 0.1


def test_the_critic_is_no_steeper_than_1() -> None:
    torch.manual_seed(0)
    critic = Critic(4)
    for _ in range(50):  # the norms are found step by step
        critic(unit(3, 4), unit(3, 4))
    critic.eval()
    one, two = noise(64, 8), noise(64, 8, seed=1)
    scores = [critic(x[:, :4], x[:, 4:]).diagonal() for x in (one, two)]
    assert ((scores[0] - scores[1]).abs() <= (one - two).norm(dim=1) * 1.001).all()


def test_the_critic_learns_to_tell_pairs_from_strangers() -> None:
    teacher = unit(8, 4)
    term = built(WassersteinContrast(dim=4, local_weight=0.0), seen(teacher, teacher))
    optimizer = torch.optim.Adam(term.learned(), lr=1e-2)
    first = float(term(seen(teacher, teacher)).detach())
    for _ in range(60):
        optimizer.zero_grad()
        term(seen(teacher, teacher)).backward()
        optimizer.step()
    assert float(term(seen(teacher, teacher)).detach()) < first - 0.05
