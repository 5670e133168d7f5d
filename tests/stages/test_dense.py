"""Losses on maps: each against its formula, and what must not change it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hand_made import built, gradient, noise, seen
from torch import Tensor, nn

from edgepress.stages.distill.dense import (
    ChannelWise,
    IntraClass,
    PairWise,
    PearsonFeatures,
    PixelWise,
    labels_at,
    standard,
)
from edgepress.stages.distill.losses import make
from edgepress.stages.distill.nouns import Out, Step
from edgepress.stages.distill.response import divergence
from edgepress.targets.errors import RecipeError, StageError

LABELS = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))


def answered(student: Tensor, teacher: Tensor, **rest: Any) -> Step:
    """A step in which only the answers are looked at."""
    step = seen([], [], logits=(student, teacher), **rest)
    assert isinstance(step.student, Out)
    return step


def test_channel_wise_distillation_is_the_published_formula() -> None:
    student, teacher, temperature = noise(2, 3, 4, 5), noise(2, 3, 4, 5, seed=1), 2.0
    by_hand = 0.0
    for b, c in np.ndindex(2, 3):
        p = (teacher[b, c].flatten() / temperature).softmax(0)
        q = (student[b, c].flatten() / temperature).softmax(0)
        by_hand += float((p * (p / q).log()).sum()) * temperature**2 / 3 / 2
    step = answered(student, teacher)
    assert float(built(ChannelWise(temperature=temperature), step)(step)) == pytest.approx(by_hand, rel=1e-4)


def test_channel_wise_distillation_looks_at_features_where_taps_are_given() -> None:
    student, teacher = noise(4, 3, 4, 4), noise(4, 5, 8, 8, seed=1)
    term = built(ChannelWise(temperature=1.0), seen(student, teacher))
    assert gradient(term, student, teacher).abs().sum() > 0
    assert sum(parameter.numel() for parameter in term.learned()) == 3 * 5 + 2 * 5


def test_channel_wise_distillation_does_not_change_with_the_level_of_a_channel() -> None:
    student, teacher = noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1)
    term = built(ChannelWise(), answered(student, teacher))
    raised = student + noise(2, 3, 1, 1, seed=2)
    torch.testing.assert_close(term(answered(raised, teacher)), term(answered(student, teacher)))


def test_pearson_features_are_1_less_their_correlation() -> None:
    student, teacher = noise(3, 4, 5, 5).double(), noise(3, 4, 5, 5, seed=1).double()
    correlations = [np.corrcoef(student[:, c].flatten(), teacher[:, c].flatten())[0, 1] for c in range(4)]
    step = seen(student, teacher)
    assert float(built(PearsonFeatures(), step)(step)) == pytest.approx(1 - np.mean(correlations))


def test_pearson_features_do_not_change_with_the_size_and_level_of_channels() -> None:
    student, teacher = noise(3, 4, 5, 5), noise(3, 4, 5, 5, seed=1)
    moved = student * torch.tensor([1.0, 10.0, 0.1, 3.0]).view(1, 4, 1, 1) + 7.0
    term = built(PearsonFeatures(), seen(student, teacher))
    torch.testing.assert_close(term(seen(moved, teacher)), term(seen(student, teacher)))


def test_a_channel_that_says_nothing_stays_silent() -> None:
    features = torch.full((2, 1, 3, 3), 5.0, requires_grad=True)
    said = standard(features)
    said.sum().backward()
    assert (said == 0).all()
    assert torch.isfinite(features.grad).all()


def test_pixel_wise_distillation_is_kd_at_each_pixel() -> None:
    student, teacher = noise(2, 3, 4, 5), noise(2, 3, 4, 5, seed=1)
    p, q = teacher.softmax(1), student.softmax(1)
    by_hand = (p * (p / q).log()).sum(1).mean()
    step = answered(student, teacher)
    torch.testing.assert_close(built(PixelWise(), step)(step), by_hand)
    mask = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask[0, 1, 2] = True
    one = divergence(student[0, :, 1, 2], teacher[0, :, 1, 2], temperature=1.0)
    torch.testing.assert_close(PixelWise()(answered(student, teacher, mask=mask)), one)


def test_pair_wise_distillation_is_the_published_formula() -> None:
    student, teacher = noise(2, 3, 4, 4), noise(2, 6, 4, 4, seed=1)

    def likeness(features: Tensor) -> Tensor:
        nodes = F.max_pool2d(features, 2).flatten(2)
        return torch.stack([F.cosine_similarity(nodes[:, :, [i]], nodes, dim=1) for i in range(4)], dim=1)

    by_hand = ((likeness(student) - likeness(teacher)) ** 2).sum() / 4**2 / 2
    step = seen(student, teacher)
    torch.testing.assert_close(built(PairWise(), step)(step), by_hand)


def test_pair_wise_distillation_does_not_change_when_places_are_scaled() -> None:
    student, teacher = noise(2, 3, 4, 4), noise(2, 6, 4, 4, seed=1)
    term = built(PairWise(grid=4), seen(student, teacher))
    louder = student * (noise(2, 1, 4, 4, seed=2).abs() + 0.1)
    torch.testing.assert_close(term(seen(louder, teacher)), term(seen(student, teacher)), rtol=1e-4, atol=1e-6)


def test_one_place_has_no_pair() -> None:
    with pytest.raises(RecipeError, match="no other to relate to"):
        make("skd_pair", {"grid": 1})


def test_intra_class_variation_is_the_published_formula() -> None:
    student, teacher = noise(2, 3, 4, 4), noise(2, 5, 4, 4, seed=1)
    labels = LABELS[:, ::2, ::2].clone()
    labels[0, 0, 0] = -100
    gaps = []
    for b in range(2):
        for row, column in np.ndindex(4, 4):
            label = labels[b, row, column]
            if label == -100:
                continue
            both = []
            for features in (student, teacher):
                centre = features[b][:, labels[b] == label].mean(1)
                both.append(F.cosine_similarity(features[b, :, row, column], centre, dim=0))
            gaps.append((both[0] - both[1]) ** 2)
    step = seen(student, teacher, y=labels)
    torch.testing.assert_close(built(IntraClass(), step)(step), torch.stack(gaps).mean())


def test_intra_class_variation_takes_labels_finer_than_the_features() -> None:
    student, teacher = noise(2, 3, 4, 4), noise(2, 5, 4, 4, seed=1)
    fine = built(IntraClass(), seen(student, teacher, y=LABELS))(seen(student, teacher, y=LABELS))
    coarse = IntraClass()
    coarse.pairs = (("0", "0"),)
    torch.testing.assert_close(fine, coarse(seen(student, teacher, y=LABELS[:, ::2, ::2])))


def test_pixels_outside_the_mask_have_no_label() -> None:
    step = seen(noise(2, 3, 4, 4), noise(2, 3, 4, 4), y=LABELS, mask=torch.zeros(2, 8, 8, dtype=torch.bool))
    assert (labels_at(step, (4, 4)) == -100).all()
    torch.testing.assert_close(built(IntraClass(), step)(step), torch.tensor(0.0))


def test_labels_of_whole_images_are_refused() -> None:
    step = seen(noise(2, 3, 4, 4), noise(2, 3, 4, 4), y=torch.tensor([0, 1]))
    with pytest.raises(StageError, match=r"label for each pixel.*\(2,\)"):
        built(IntraClass(), step)


def test_vectors_are_no_maps() -> None:
    with pytest.raises(StageError, match=r"cwd looks at maps.*\(4, 3\)"):
        built(ChannelWise(), seen(noise(4, 3), noise(4, 3)))


def test_answers_of_different_classes_are_refused() -> None:
    with pytest.raises(StageError, match="5 classes apart and the student 3"):
        built(ChannelWise(), answered(noise(2, 3, 4, 4), noise(2, 5, 4, 4)))


@pytest.mark.parametrize("name", ["cwd", "pkd", "skd_pair", "ifvd"])
def test_a_student_with_the_teachers_map_has_nothing_left_to_learn(name: str) -> None:
    step = seen(noise(2, 3, 4, 4), noise(2, 3, 4, 4), y=LABELS)
    torch.testing.assert_close(built(make(name, {}), step)(step), torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [0.0, 1e4])
@pytest.mark.parametrize("name", ["cwd", "pkd", "skd_pair", "ifvd"])
def test_losses_of_extreme_maps_are_finite(name: str, size: float) -> None:
    student, teacher = size * noise(2, 3, 4, 4), size * noise(2, 5, 8, 8, seed=1)
    gradient(built(make(name, {}), seen(student, teacher, y=LABELS)), student, teacher, y=LABELS)


def test_adapters_learn_with_the_student() -> None:
    term = built(PearsonFeatures(), seen(noise(2, 3, 4, 4), noise(2, 5, 4, 4)))
    assert any(isinstance(part, nn.Conv2d) for part in term.modules())
    assert list(term.learned())
