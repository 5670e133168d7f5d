"""Losses for answers at every place of an image: where a channel looks, and how places relate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ..tasks import IGNORED
from .adapters import adapter, as_map, meet
from .nouns import Need, Step, Term
from .pairing import Adapted, OverPairs
from .response import Imitation, above_zero, answers, average, divergence, refuse_unlike

EPS = 1e-12  # under a variance: a channel that says nothing stays 0


def refuse_flat(features: Tensor, *, what: str) -> None:
    """StageError: these are no maps."""
    if features.ndim != 4:
        raise StageError(
            f"{what} looks at maps, (batch, channels, height, width), and is shown the shape {tuple(features.shape)}: "
            "tap a module whose output is a map"
        )


def over_places(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL of each channel's softmax over all places, teacher to student, averaged over channels and batch."""
    return divergence(student.flatten(2), teacher.flatten(2), temperature=temperature)


class ChannelWise(Term):
    """T^2 / C sum over channels of KL(softmax over places of F_t / T || that of F_s / T), averaged over the batch.

    CWD: Shu et al., 2021 (arXiv:2011.13256). Without taps it compares the answers' maps, one channel for each class,
    with T 4 (weight 3 in MMRazor); with taps it compares features, where T 1 and weight 50 are usual, behind a 1x1
    convolution with batch norm where the widths differ.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.temperature = temperature
        self.adapters = nn.ModuleList()

    def build(self, probe: Step) -> None:
        for mine, theirs in self._maps(probe):
            for features in (mine, theirs):
                refuse_flat(features, what="cwd")
            if self.pairs:
                self.adapters.append(adapter(mine.shape[1:], theirs.shape[1:]))
            elif mine.shape[1] != theirs.shape[1]:
                refuse_unlike(mine, theirs, name=next(iter(probe.teachers)))

    def forward(self, step: Step) -> Tensor:
        values = []
        for place, pair in enumerate(self._maps(step)):
            mine, theirs = meet(*pair)
            mine = self.adapters[place](mine) if self.pairs else mine
            values.append(over_places(mine, theirs, temperature=self.temperature))
        return torch.stack(values).sum()

    def _maps(self, step: Step) -> list[tuple[Tensor, Tensor]]:
        if not self.pairs:
            return [(step.student.logits, step.teacher().logits)]
        return list(step.pairs(self.pairs))


def standard(features: Tensor) -> Tensor:
    """Each channel with mean 0 and variance 1 over batch and places."""
    variance, mean = torch.var_mean(features, dim=(0, 2, 3), keepdim=True, correction=0)
    return (features - mean) / (variance + EPS).sqrt()


class PearsonFeatures(Adapted):
    """1 - r summed over pairs, r the correlation of F_s and F_t over batch and places, averaged over channels.

    PKD: Cao et al., 2022 (arXiv:2207.02039), as half the mean squared difference of standardised channels, which is the
    same. Sizes and offsets of features do not matter. Made for the levels of a feature pyramid; where widths differ a
    1x1 convolution with batch norm joins them, which is ours.
    """

    def build(self, probe: Step) -> None:
        for mine, theirs in probe.pairs(self.pairs):
            for features in (mine, theirs):
                refuse_flat(features, what="pkd")
        super().build(probe)

    def distance(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        return F.mse_loss(standard(student), standard(teacher)) / 2


class PixelWise(Imitation):
    """KL(p_t || p_s) at every pixel, averaged over pixels.

    The pixel-wise term of structured distillation for segmentation: Liu et al., 2019 (arXiv:1903.04197), weight 10 in
    its code. It is kd at T 1. The paper's third term, an adversary that sees the whole image, is a loss of its own.
    """

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        return divergence(student, teacher, temperature=1.0)


class PairWise(OverPairs):
    """mean over pairs of places of (cos_s(i, j) - cos_t(i, j))^2, after max-pooling to `grid` x `grid` places.

    The pair-wise term of structured distillation for segmentation: Liu et al., 2019 (arXiv:1903.04197). Its code pools
    by half the map, a grid of 2, with weight 1; a finer grid compares more places. Needs no equal widths.
    """

    place: ClassVar[str | None] = "@map"

    def __init__(self, *, grid: int = 2) -> None:
        super().__init__()
        if grid < 2:
            raise ValueError(f"grid is {grid}; one place has no other to relate to")
        self.grid = grid

    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        return F.mse_loss(self._likeness(as_map(student)), self._likeness(as_map(teacher)))

    def _likeness(self, features: Tensor) -> Tensor:
        """(batch, places, places): cosines."""
        places = F.normalize(F.adaptive_max_pool2d(features, self.grid).flatten(2), dim=1)
        return places.transpose(1, 2) @ places


def labels_at(step: Step, size: Sequence[int]) -> Tensor:
    """(batch, height, width): the labels of pixels at the size of a feature map, IGNORED outside the mask.

    StageError: the labels are none of pixels.
    """
    labels = step.labels()
    if labels.ndim != 3:
        raise StageError(
            f"the loss needs a label for each pixel, (batch, height, width), and these labels are of the shape "
            f"{tuple(labels.shape)}"
        )
    if step.batch.mask is not None and step.batch.mask.shape == labels.shape:
        labels = labels.masked_fill(~step.batch.mask.bool(), IGNORED)
    small = F.interpolate(labels.unsqueeze(1).double(), size=list(size), mode="nearest")
    return small.squeeze(1).long()


class IntraClass(Term):
    """mean over pixels of (c_s - c_t)^2, c the cosine of a pixel's features with the mean of its class in the image.

    IFVD: Wang et al., 2020 (ECCV, "Intra-class Feature Variation Distillation for Semantic Segmentation"). Pixels
    without a label do not count. Needs no equal widths.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels"})
    place: ClassVar[str | None] = "@map"

    def build(self, probe: Step) -> None:
        labels_at(probe, (1, 1))

    def forward(self, step: Step) -> Tensor:
        values = []
        for pair in step.pairs(self.pairs):
            mine, theirs = (as_map(features) for features in meet(*pair))
            labels = labels_at(step, mine.shape[2:]).flatten(1)
            gap = self._variation(mine, labels) - self._variation(theirs, labels)
            values.append(average(gap.square()[labels != IGNORED]))
        return torch.stack(values).sum()

    @staticmethod
    def _variation(features: Tensor, labels: Tensor) -> Tensor:
        """(batch, places): the cosine of each place with the mean of its class."""
        _, classes = torch.unique(labels, return_inverse=True)  # numbered from 0, IGNORED as one of them
        member = F.one_hot(classes).to(features.dtype)
        sums = features.flatten(2) @ member
        centres = sums / member.sum(dim=1, keepdim=True).clamp(min=1)
        return F.cosine_similarity(features.flatten(2), centres @ member.transpose(1, 2), dim=1)
