"""Relations between samples: each loss against its formula, and what must not change it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hand_made import built, gradient, noise, seen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgepress.stages.distill.losses import make
from edgepress.stages.distill.nouns import Term
from edgepress.stages.distill.relation import Affinities, RelationalKnowledge, SimilarityPreserving, distances
from edgepress.targets.errors import RecipeError

NAMES = ("affinity", "cc", "pkt", "rkd", "sp")


def value(term: Term, student: Tensor, teacher: Tensor) -> Tensor:
    step = seen(student, teacher)
    result: Tensor = built(term, step)(step)
    return result


def rotation(width: int) -> Tensor:
    return torch.linalg.qr(noise(width, width, seed=9))[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_student_with_the_teachers_relations_has_nothing_left_to_learn(name: str) -> None:
    features = noise(6, 5)
    torch.testing.assert_close(value(make(name, {}), features, features), torch.tensor(0.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_relations_do_not_change_when_the_features_are_rotated(name: str) -> None:
    student, teacher = noise(6, 5), noise(6, 5, seed=1)
    turned = value(make(name, {}), student @ rotation(5), teacher @ rotation(5))
    torch.testing.assert_close(turned, value(make(name, {}), student, teacher), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_relations_do_not_change_when_one_networks_features_are_scaled(name: str) -> None:
    student, teacher = noise(6, 5), noise(6, 5, seed=1)
    scaled = value(make(name, {}), 30.0 * student, teacher)
    torch.testing.assert_close(scaled, value(make(name, {}), student, teacher), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_relations_fit_networks_of_different_widths(name: str) -> None:
    assert gradient(built(make(name, {}), seen(noise(4, 3), noise(4, 7))), noise(4, 3), noise(4, 7)).abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e4, 1e-6])
def test_relations_of_extreme_features_are_finite(name: str, size: float) -> None:
    student, teacher = size * noise(5, 4), size * noise(5, 4, seed=1)
    gradient(built(make(name, {}), seen(student, teacher)), student, teacher)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_equal_or_silent_samples_does_no_harm(name: str) -> None:
    same, silent = noise(1, 4).expand(5, -1), torch.zeros(5, 4)
    for student, teacher in ((same, noise(5, 4)), (noise(5, 4), same), (silent, noise(5, 4)), (silent, silent)):
        gradient(built(make(name, {}), seen(student, teacher)), student, teacher)


def test_similarity_preserving_is_the_published_formula() -> None:
    student, teacher = noise(4, 3).double().numpy(), noise(4, 6, seed=1).double().numpy()

    def rows(features: Any) -> Any:
        gram = features @ features.T
        return gram / np.linalg.norm(gram, axis=1, keepdims=True)

    by_hand = np.sum((rows(student) - rows(teacher)) ** 2) / 4**2
    result = value(SimilarityPreserving(), torch.from_numpy(student), torch.from_numpy(teacher))
    assert float(result) == pytest.approx(by_hand)


def test_probabilistic_transfer_sums_over_a_row_and_averages_over_rows() -> None:
    student, teacher = noise(4, 3).double().numpy(), noise(4, 6, seed=1).double().numpy()

    def chances(features: Any) -> Any:
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        near = (unit @ unit.T + 1) / 2
        return near / near.sum(axis=1, keepdims=True)

    p, q = chances(teacher), chances(student)
    result = value(make("pkt", {}), torch.from_numpy(student), torch.from_numpy(teacher))
    assert float(result) == pytest.approx(np.sum(p * np.log(p / q)) / 4)


def test_correlation_congruence_is_a_taylor_series_of_a_gaussian_kernel() -> None:
    student, teacher = noise(4, 3).double().numpy(), noise(4, 6, seed=1).double().numpy()

    def kernel(features: Any) -> Any:
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        near = unit @ unit.T
        return np.exp(-0.8) * (1 + 0.8 * near + 0.32 * near**2)

    result = value(make("cc", {}), torch.from_numpy(student), torch.from_numpy(teacher))
    assert float(result) == pytest.approx(np.mean((kernel(student) - kernel(teacher)) ** 2))


def test_a_long_taylor_series_is_the_gaussian_itself() -> None:
    student, teacher = noise(4, 3), noise(4, 6, seed=1)
    exact = value(make("cc", {"order": 0}), student, teacher)
    torch.testing.assert_close(value(make("cc", {"order": 12}), student, teacher), exact)


def huber(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def test_relational_distillation_is_the_published_formula() -> None:
    student, teacher = noise(4, 3).double(), noise(4, 6, seed=1).double()
    far, turn = [], []
    for features in (student.numpy(), teacher.numpy()):
        between = np.array([[np.linalg.norm(a - b) for b in features] for a in features])
        far.append(between / between[between > 0].mean())
        cosine = np.zeros((4, 4, 4))
        for i, j, k in np.ndindex(4, 4, 4):
            if i not in (j, k):
                a, b = features[j] - features[i], features[k] - features[i]
                cosine[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        turn.append(cosine)
    by_distance = np.mean([huber(d) for d in (far[0] - far[1]).ravel()])
    by_angle = np.mean([huber(d) for d in (turn[0] - turn[1]).ravel()])
    assert float(value(RelationalKnowledge(), student, teacher)) == pytest.approx(25 * by_distance + 50 * by_angle)
    assert float(value(RelationalKnowledge(angle=0.0), student, teacher)) == pytest.approx(25 * by_distance)


def test_angles_are_taken_among_the_first_samples_of_a_large_batch() -> None:
    student, teacher = noise(9, 3), noise(9, 6, seed=1)
    few = value(make("rkd", {"distance": 0.0, "angle_samples": 4}), student, teacher)
    torch.testing.assert_close(few, value(make("rkd", {"distance": 0.0}), student[:4], teacher[:4]))


def test_the_named_losses_are_cases_of_the_general_one() -> None:
    student, teacher = noise(5, 3), noise(5, 6, seed=1)
    general = make("affinity", {"affinity": "inner", "normalise": "row", "distance": "l2"})
    torch.testing.assert_close(value(general, student, teacher), value(make("sp", {}), student, teacher))
    general = make("affinity", {"affinity": "cos", "normalise": "sum", "distance": "kl"})
    torch.testing.assert_close(value(general, student, teacher), value(make("pkt", {}), student, teacher))
    general = make("affinity", {"affinity": "l2", "normalise": "mean", "distance": "smooth"})
    rkd = make("rkd", {"distance": 1.0, "angle": 0.0})
    torch.testing.assert_close(value(general, student, teacher), value(rkd, student, teacher))


@given(
    affinity=st.sampled_from(["cos", "l2", "inner", "gaussian"]),
    normalise=st.sampled_from(["none", "softmax", "row", "sum", "mean"]),
    distance=st.sampled_from(["kl", "l2", "l1", "smooth"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_every_combination_works_or_says_why_not(affinity: str, normalise: str, distance: str, seed: int) -> None:
    options = {"affinity": affinity, "normalise": normalise, "distance": distance}
    if (distance == "kl" and normalise not in ("softmax", "sum")) or (normalise == "sum" and affinity == "inner"):
        with pytest.raises(RecipeError, match="normalise"):
            make("affinity", options)
        return
    student, teacher = noise(5, 3, seed=seed), noise(5, 4, seed=seed + 1)
    result = value(make("affinity", options), student, teacher)
    assert torch.isfinite(result)
    assert result > -1e-6
    torch.testing.assert_close(value(make("affinity", options), teacher, teacher), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_an_unknown_choice_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="it can be cos, l2, inner, gaussian"):
        make("affinity", {"affinity": "manhattan"})


def test_every_pair_of_taps_adds_its_own_relations() -> None:
    features = [noise(5, 3), noise(5, 4, seed=1), noise(5, 6, seed=2), noise(5, 2, seed=3)]
    step = seen(features[:2], features[2:])
    both = built(Affinities(), step)(step)
    torch.testing.assert_close(
        both, value(Affinities(), features[0], features[2]) + value(Affinities(), features[1], features[3])
    )


def test_tokens_that_do_not_count_have_no_part_in_relations() -> None:
    tokens, padded = noise(4, 3, 2), noise(4, 3, 2)
    mask = torch.tensor([[1, 1, 0]] * 4, dtype=torch.bool)
    padded[:, 2] = 7.0
    teacher = noise(4, 3, 5, seed=1)
    term = built(make("sp", {}), seen(tokens, teacher))
    torch.testing.assert_close(term(seen(tokens, teacher, mask=mask)), term(seen(padded, teacher, mask=mask)))


def test_distances_between_near_samples_keep_their_digits() -> None:
    base = 1000.0 * noise(1, 8)
    pair = torch.cat([base, base + 1e-2])
    assert float(distances(pair)[0, 1]) == pytest.approx(float((pair[0] - pair[1]).norm()), rel=1e-5)
