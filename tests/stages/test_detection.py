"""Losses of detectors: borders as distributions, and what is in front."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hand_made import built, gradient, noise, seen
from torch import Tensor

from edgepress.stages.distill.detection import FocalGlobal, GlobalContext, Localisation, attentions
from edgepress.stages.distill.nouns import Step
from edgepress.targets.errors import StageError

BINS = 5


def answered(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Step:
    return seen([], [], logits=(student, teacher), mask=mask)


def located(student: Tensor, teacher: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    step = answered(student, teacher, mask)
    value: Tensor = built(Localisation(bins=BINS, **options), step)(step)
    return value


def test_localisation_is_the_mean_divergence_of_borders() -> None:
    student, teacher = noise(2, 6, 4, BINS), noise(2, 6, 4, BINS, seed=1)
    p, q = (teacher / 3).softmax(3), (student / 3).softmax(3)
    by_hand = 9 * (p * (p / q).log()).sum(3).mean()
    torch.testing.assert_close(located(student, teacher, temperature=3.0), by_hand)


def test_localisation_reads_the_layouts_of_detectors() -> None:
    student, teacher = noise(2, 6, 4, BINS), noise(2, 6, 4, BINS, seed=1)
    expected = located(student, teacher)
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0, 4] = mask[1, 1] = True
    masked = located(student, teacher, mask)
    layouts = (
        lambda said: said.flatten(2),  # (batch, anchors, borders x bins)
        lambda said: said.flatten(2).transpose(1, 2),  # (batch, borders x bins, anchors)
        lambda said: said.flatten(2).transpose(1, 2).unflatten(2, (2, 3)),  # (batch, borders x bins, height, width)
        lambda said: said.unflatten(1, (2, 3)),  # (batch, height, width, borders, bins)
    )
    for lay in layouts:
        torch.testing.assert_close(located(lay(student), lay(teacher)), expected)
        torch.testing.assert_close(located(lay(student), lay(teacher), mask), masked)
    maps = [layouts[2](said) for said in (student, teacher)]
    torch.testing.assert_close(located(maps[0], maps[1], mask.view(2, 2, 3)), masked)


def test_localisation_of_no_position_is_0() -> None:
    nowhere = torch.zeros(2, 6, dtype=torch.bool)
    assert located(noise(2, 6, 4, BINS), noise(2, 6, 4, BINS, seed=1), nowhere) == 0


def test_a_shape_without_bins_is_refused() -> None:
    with pytest.raises(StageError, match=r"5 bins or 4 x 5 channels in \(2, 7, 3\)"):
        located(noise(2, 7, 3), noise(2, 7, 3))
    with pytest.raises(StageError, match=r"the mask has 5 positions for each image and the detector 6"):
        located(noise(2, 6, 4, BINS), noise(2, 6, 4, BINS), torch.ones(2, 5))
    with pytest.raises(StageError, match="the same anchors and bins"):
        located(noise(2, 6, 4, BINS), noise(2, 7, 4, BINS))


def test_attentions_have_a_mean_of_1_and_follow_the_features() -> None:
    features = noise(2, 3, 4, 5)
    features[0, :, 2, 3] = 9.0
    where, which = attentions(features, temperature=0.5)
    torch.testing.assert_close(where.mean(dim=(1, 2)), torch.ones(2))
    torch.testing.assert_close(which.mean(dim=1), torch.ones(2))
    assert where[0].argmax() == 2 * 5 + 3


def test_focal_and_global_distillation_is_its_formula() -> None:
    student, teacher = noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1)
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    labels[0, 1:3, 1:3] = 2
    labels[1, 0, 0] = 1
    step = seen(student, teacher, y=labels)
    value = built(FocalGlobal(alpha=0.3, beta=0.2, gamma=0.1, relation=0.05), step)(step)
    where, which = attentions(teacher, temperature=0.5)
    looked, chosen = attentions(student, temperature=0.5)
    by_hand = 0.0
    for b in range(2):
        gap = ((student[b] - teacher[b]) ** 2 * which[b].view(3, 1, 1) * where[b]).sum(0)
        front = labels[b] != 0
        by_hand += float(0.3 * gap[front].mean() + 0.2 * gap[~front].mean())
        by_hand += float(0.1 * ((looked[b] - where[b]).abs().sum() + (chosen[b] - which[b]).abs().sum()))
        by_hand += float(0.05 * ((student[b] - teacher[b]) ** 2).sum())  # contexts begin by adding nothing
    assert float(value.detach()) == pytest.approx(by_hand / 2, rel=1e-4)


def test_a_global_context_adds_one_vector_to_every_place() -> None:
    torch.manual_seed(0)
    context = GlobalContext(4)
    features = noise(2, 4, 3, 3)
    torch.testing.assert_close(context(features), features)
    torch.nn.init.normal_(context.say[3].weight)
    added = context(features) - features
    assert added.abs().sum() > 0
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added))


def test_a_mask_can_mark_what_is_in_front() -> None:
    student, teacher = noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1)
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[:, 2:6, 2:6] = 1
    by_mask = seen(student, teacher, mask=labels.bool())
    by_labels = seen(student, teacher, y=labels)
    torch.testing.assert_close(built(FocalGlobal(), by_mask)(by_mask), built(FocalGlobal(), by_labels)(by_labels))


def test_without_labels_or_mask_nothing_is_in_front() -> None:
    with pytest.raises(StageError, match="what is in front"):
        built(FocalGlobal(), seen(noise(2, 3, 4, 4), noise(2, 3, 4, 4), y=torch.tensor([0, 1])))


@pytest.mark.parametrize("size", [0.0, 1e4])
def test_losses_of_extreme_maps_are_finite(size: float) -> None:
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    student, teacher = size * noise(2, 3, 4, 4), size * noise(2, 5, 8, 8, seed=1)
    term = built(FocalGlobal(), seen(student, teacher, y=labels))
    gradient(term, student, teacher, y=labels)


def test_all_adapters_and_contexts_are_learned_and_none_is_the_students() -> None:
    term = built(FocalGlobal(), seen(noise(2, 3, 4, 4), noise(2, 5, 4, 4), mask=torch.ones(2, 4, 4)))
    assert {name.partition(".")[0] for name, _ in term.named_parameters()} == {"adapters", "contexts"}
