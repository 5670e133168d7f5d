"""Losses on how samples of a batch relate to each other: they fit any two widths, so they need no adapters."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from .nouns import Need, Step, Term
from .response import above_zero, one_of

Affinity = Literal["cos", "l2", "inner", "gaussian"]
Normalise = Literal["none", "softmax", "row", "sum", "mean"]
Distance = Literal["kl", "l2", "l1", "smooth"]
TINY = 1e-8  # under a sum of affinities, or under an affinity whose logarithm is taken


def flat(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """(batch, everything else): each sample as one vector; tokens that do not count are zero."""
    if mask is not None and mask.shape == features.shape[:2] and features.ndim == 3:
        features = features * mask.unsqueeze(-1)
    return features.flatten(1)


def distances(vectors: Tensor) -> Tensor:
    """(batch, batch): Euclidean distances, from differences: a Gram matrix would lose the small ones."""
    return torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")


def affinities(vectors: Tensor, kind: Affinity, *, gamma: float = 0.4, order: int = 0) -> Tensor:
    """(batch, batch): how alike samples are; for `l2` how far apart.

    gaussian: exp(-gamma |a - b|^2) of unit vectors; order: that many terms of its Taylor series in cos(a, b) beyond
    the constant one, 0 for all of them.
    """
    if kind == "l2":
        return distances(vectors)
    if kind == "inner":
        return vectors @ vectors.T
    unit = F.normalize(vectors)
    cosine = unit @ unit.T
    if kind == "cos":
        return cosine
    if order == 0:
        return torch.exp(2 * gamma * (cosine - 1))
    series = [(2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(series).sum(dim=0)


def normalised(matrix: Tensor, how: Normalise, *, temperature: float = 1.0) -> Tensor:
    """(batch, batch): affinities that can be compared between networks.

    row: rows of length 1. sum: rows that add up to 1. mean: divided by the mean of what is not 0. softmax: over rows.
    """
    if how == "softmax":
        return F.softmax(matrix / temperature, dim=1)
    if how == "row":
        return F.normalize(matrix)
    if how == "sum":
        return matrix / matrix.sum(dim=1, keepdim=True).clamp(min=TINY)
    if how == "mean":
        return matrix / (matrix.sum() / (matrix > 0).sum().clamp(min=1)).clamp(min=TINY)
    return matrix


def apart(student: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """How far one matrix of affinities is from another.

    kl: of rows that are distributions, KL(teacher || student), summed over a row and averaged over rows. The others are
    averaged over all entries; smooth is Huber's with its knee at 1.
    """
    if distance == "kl":
        ratio = teacher.clamp(min=TINY).log() - student.clamp(min=TINY).log()
        return (teacher * ratio).sum(dim=1).mean()
    if distance == "l1":
        return F.l1_loss(student, teacher)
    return F.mse_loss(student, teacher) if distance == "l2" else F.smooth_l1_loss(student, teacher)


class Affinities(Term):
    """Alike in the teacher, alike in the student: the distance of two normalised matrices of affinities.

    Li & Maki, 2022 (arXiv:2209.15555), whose abstract names the three parts: affinity, normalisation, loss. The choices
    offered here and the defaults (cos, softmax, kl) are ours. affinity: cos, l2 (distances), inner, gaussian.
    normalise: none, softmax, row (length 1), sum (rows add up to 1; cosines are moved to 0..1 first), mean. distance:
    kl (after softmax or sum only), l2, l1, smooth. temperature: of the softmax. gamma, order: of the gaussian.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@pool"

    def __init__(
        self,
        *,
        affinity: Affinity = "cos",
        normalise: Normalise = "softmax",
        distance: Distance = "kl",
        temperature: float = 1.0,
        gamma: float = 0.4,
        order: int = 0,
    ) -> None:
        super().__init__()
        one_of(affinity, get_args(Affinity), option="affinity")
        one_of(normalise, get_args(Normalise), option="normalise")
        one_of(distance, get_args(Distance), option="distance")
        above_zero(temperature=temperature)
        if distance == "kl" and normalise not in ("softmax", "sum"):
            raise ValueError(f"kl compares distributions: normalise by softmax or sum, not {normalise}")
        if normalise == "sum" and affinity == "inner":
            raise ValueError("inner products may be negative and add up to 0: normalise them by softmax or row")
        self.affinity, self.normalise, self.distance = affinity, normalise, distance
        self.temperature, self.gamma, self.order = temperature, gamma, order

    def relations(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, batch): the normalised affinities of one network."""
        matrix = affinities(flat(features, mask), self.affinity, gamma=self.gamma, order=self.order)
        if self.affinity == "cos" and self.normalise == "sum":
            matrix = (matrix + 1) / 2
        return normalised(matrix, self.normalise, temperature=self.temperature)

    def forward(self, step: Step) -> Tensor:
        mask = step.batch.mask
        values = [
            apart(self.relations(mine, mask), self.relations(theirs, mask), self.distance)
            for mine, theirs in step.pairs(self.pairs)
        ]
        return torch.stack(values).sum()


class SimilarityPreserving(Affinities):
    """mean((rownorm(F_s F_s^T) - rownorm(F_t F_t^T))^2), whole features as vectors, rows scaled to length 1.

    Tung & Mori, 2019 (arXiv:1907.09682). Published weight: 3000.
    """

    def __init__(self) -> None:
        super().__init__(affinity="inner", normalise="row", distance="l2")


class ProbabilisticTransfer(Affinities):
    """KL of (cos + 1) / 2 scaled to rows that add up to 1, teacher to student (PKT).

    Passalis & Tefas, 2018 (arXiv:1803.10837). Published weight: 30000 for a mean over all pairs; rows are summed here,
    so that weight has to be divided by the batch size: 30000 / 64 is about 470.
    """

    def __init__(self) -> None:
        super().__init__(affinity="cos", normalise="sum", distance="kl")


class CorrelationCongruence(Affinities):
    """mean((C_s - C_t)^2), C the Taylor series of a Gaussian kernel of unit vectors.

    Peng et al., 2019 (arXiv:1904.01802): exp(-2 gamma) sum_p (2 gamma)^p / p! cos^p, gamma 0.4, up to order 2, as in
    the public implementations. RepDistiller's CC is another formula, the product of neighbours' differences.
    """

    def __init__(self, *, gamma: float = 0.4, order: int = 2) -> None:
        super().__init__(affinity="gaussian", normalise="none", distance="l2", gamma=gamma, order=order)


def angles(vectors: Tensor) -> Tensor:
    """(batch, batch, batch): the cosine of the angle at the first sample between the two others."""
    towards = F.normalize(vectors.unsqueeze(0) - vectors.unsqueeze(1), dim=2)
    return towards @ towards.transpose(1, 2)


class RelationalKnowledge(Term):
    """distance * Huber(d_ij / mean d) + angle * Huber(cos of the angle ijk), student against teacher (RKD).

    Park et al., 2019 (arXiv:1904.05068). The weights 25 and 50 are RepDistiller's; the authors' own are 1 and 2. Angles
    grow with the cube of the batch: they are taken among its first `angle_samples`, 64 being the whole batch of the
    published runs.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@pool"

    def __init__(self, *, distance: float = 25.0, angle: float = 50.0, angle_samples: int = 64) -> None:
        super().__init__()
        self.distance, self.angle, self.angle_samples = distance, angle, angle_samples

    def forward(self, step: Step) -> Tensor:
        values = []
        for mine, theirs in step.pairs(self.pairs):
            student, teacher = flat(mine, step.batch.mask), flat(theirs, step.batch.mask)
            far = [normalised(distances(vectors), "mean") for vectors in (student, teacher)]
            few = slice(0, self.angle_samples)
            values.append(self.distance * apart(far[0], far[1], "smooth"))
            values.append(self.angle * apart(angles(student[few]), angles(teacher[few]), "smooth"))
        return torch.stack(values).sum()
