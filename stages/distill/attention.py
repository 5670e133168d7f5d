"""Losses on where in the image a network is active, and not on which channel says what: widths may differ."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .adapters import as_map
from .nouns import Need, Pair, Shape, Step, Term
from .pairing import OverPairs
from .watching import Place

SQUARED = 2.0
NEGATIVE_SLOPE = 0.1  # of the paraphraser's and the translator's activations


class AttentionTransfer(OverPairs):
    """Sum over stages of mean((q_s - q_t)^2), q = v / |v|, v the mean over channels of |F|^p at each position.

    Zagoruyko & Komodakis, 2016 (arXiv:1612.03928), AT. p is 2. Usual weight: 1000. Of a teacher whose features
    have the student's positions it reads q alone: keeping that takes one number for each position.
    """

    def __init__(self, *, power: float = 2.0) -> None:
        super().__init__()
        self.power = power

    def narrowed(self, pair: Pair, student: Shape | None, teacher: Shape | None) -> Pair:
        place = Place.of(pair[1])
        if student is None or teacher is None or place.side != "out" or self.power != SQUARED:
            return pair
        positions = slice(1, None) if len(teacher) == 3 else slice(0, 1)
        meet_as_they_are = len(student) == len(teacher) in (2, 3) and student[positions] == teacher[positions]
        return (pair[0], str(replace(place, side="attention"))) if meet_as_they_are else pair

    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        is_map = Place.of(self.pairs[index][1]).side == "attention"
        return F.mse_loss(spatial(student, self.power), spatial(teacher, 1.0 if is_map else self.power))


class NeuronSelectivity(OverPairs):
    """Mean of k(t, t) + mean of k(s, s) - 2 mean of k(s, t), over pairs of channels, k(a, b) = (a . b)^2.

    Huang & Wang, 2017 (arXiv:1707.01219), NST: squared maximum mean discrepancy with a polynomial kernel between the
    channels' maps, each scaled to length 1. Usual weight: 50.
    """

    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        s, t = (F.normalize(_channels_first(one), dim=2) for one in (student, teacher))
        return _kernel(t, t) + _kernel(s, s) - 2 * _kernel(s, t)


class FactorTransfer(OverPairs):
    """Mean of |q(T(F_s)) - q(P(F_t))|, q the attention map of AT, P a paraphraser of the teacher, T a translator.

    Kim et al., 2018 (arXiv:1802.04977), FT; q as in RepDistiller, whose usual weight is 200. Both are three 3x3
    convolutions with leaky ReLU; the factors have `rate` times the teacher's channels. The paper trains the
    paraphraser first, as one half of an autoencoder; here it learns beside the student, from its reconstruction error
    mean((D(P(F_t)) - F_t)^2), which is added to the loss and reaches nothing else. Default place: the last map.
    """

    place: ClassVar[str | None] = "@map"

    def __init__(self, *, rate: float = 0.5) -> None:
        super().__init__()
        if rate <= 0:
            raise ValueError("rate is the factors' share of the teacher's channels, above 0")
        self.rate = rate

    def build(self, probe: Step) -> None:
        self.translators, self.paraphrasers, self.decoders = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for mine, theirs in probe.pairs(self.pairs):
            student, teacher = as_map(mine).shape[1], as_map(theirs).shape[1]
            factors = max(1, round(self.rate * teacher))
            self.translators.append(_three(student, student, factors, factors))
            self.paraphrasers.append(_three(teacher, teacher, factors, factors))
            self.decoders.append(_three(factors, factors, teacher, teacher))

    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        student, teacher = as_map(student), as_map(teacher)
        factors = self.paraphrasers[index](teacher)
        rebuilt = F.mse_loss(self.decoders[index](factors), teacher)
        said = spatial(self.translators[index](student), 2.0)
        return (said - spatial(factors.detach(), 2.0)).abs().mean() + rebuilt


class AttentionFeatureMatching(Term):
    """Sum over the teacher's stages t, mean over samples, of sum_s a_ts mean((v_s - v_t)^2).

    Ji, Heo & Park, 2021 (AAAI), AFD. v is the mean over channels of F^2 at each position, of length 1, averaged to the
    teacher's size; a_t = softmax_s((W k_s . q_t + p_t . p_s) / sqrt(d)): the student's stages are weighed for each of
    the teacher's. q and k are linear maps (and k a ReLU) of channel means with batch norm. d is 128. Usual weight: 200.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@stages"

    def __init__(self, *, width: int = 128) -> None:
        super().__init__()
        self.width = width

    def build(self, probe: Step) -> None:
        widths = [(as_map(mine).shape[1], as_map(theirs).shape[1]) for mine, theirs in probe.pairs(self.pairs)]
        d, count = self.width, len(widths)
        self.keys = nn.ModuleList(nn.Sequential(nn.Linear(mine, d), nn.BatchNorm1d(d), nn.ReLU()) for mine, _ in widths)
        self.queries = nn.ModuleList(nn.Sequential(nn.Linear(theirs, d), nn.BatchNorm1d(d)) for _, theirs in widths)
        self.bilinear = nn.Sequential(nn.Linear(d, d * count), nn.BatchNorm1d(d * count))
        self.p_s, self.p_t = (nn.Parameter(nn.init.xavier_normal_(torch.empty(count, d))) for _ in range(2))

    def forward(self, step: Step) -> Tensor:
        pairs = [(as_map(mine), as_map(theirs.detach())) for mine, theirs in step.pairs(self.pairs)]
        weights = self.weights(pairs)
        values = []
        for place, (_, theirs) in enumerate(pairs):
            size = (theirs.shape[2], theirs.shape[3])
            wanted = F.normalize(_energy(theirs, size))
            found = torch.stack([F.normalize(_energy(mine, size)) for mine, _ in pairs], dim=1)
            apart = (found - wanted.unsqueeze(1)).square().mean(dim=2)
            values.append((weights[:, place] * apart).sum(dim=1).mean())
        return torch.stack(values).sum()

    def weights(self, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(batch, teacher's stages, student's stages), adding up to 1 over the student's."""
        keys = [net(mine.mean(dim=(2, 3))) for net, (mine, _) in zip(self.keys, pairs, strict=True)]
        asked = [net(theirs.mean(dim=(2, 3))) for net, (_, theirs) in zip(self.queries, pairs, strict=True)]
        queries, count = torch.stack(asked, dim=1), len(pairs)
        batch = len(queries)
        key = self.bilinear(torch.cat(keys)).view(count, batch, count, self.width)  # student's stage, batch, teacher's
        scores = torch.einsum("sbtd,btd->bts", key, queries) + self.p_t @ self.p_s.T
        return F.softmax(scores / math.sqrt(self.width), dim=2)


def spatial(features: Tensor, power: float) -> Tensor:
    """(batch, positions): how active each position is, as a vector of length 1."""
    if features.ndim == 2:
        raise StageError(f"an attention map needs positions, and these features are vectors of {features.shape[1]}")
    return F.normalize(_channels_first(features).abs().pow(power).mean(dim=1))


def _channels_first(features: Tensor) -> Tensor:
    """(batch, channels, positions)."""
    return features.flatten(2) if features.ndim == 4 else features.transpose(1, 2)


def _energy(features: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, positions): mean of squares over channels, averaged to a height and width."""
    return F.adaptive_avg_pool2d(features.square().mean(dim=1, keepdim=True), size).flatten(1)


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.transpose(1, 2)).square().mean()


def _three(*widths: int) -> nn.Sequential:
    steps: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        steps += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(NEGATIVE_SLOPE)]
    return nn.Sequential(*steps)
