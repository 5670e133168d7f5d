"""Losses that tell a sample's own teacher from the teachers of other samples."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .bank import Bank
from .nouns import Need, Step, Term


def embedding(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """(batch, width): one vector for each sample: the mean over pixels, or over the tokens that count."""
    if features.ndim == 4:
        return features.mean(dim=(2, 3))
    if features.ndim == 3 and mask is not None and mask.shape == features.shape[:2]:
        kept = mask.unsqueeze(-1).to(features.dtype)
        return (features * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
    return features.mean(dim=1) if features.ndim == 3 else features.flatten(1)


def classes_of(step: Step) -> Tensor | None:
    """One class for each sample, or None: there are no labels, or labels of pixels, tokens, several classes."""
    labels = step.batch.y
    return labels if labels is not None and labels.ndim == 1 and not labels.is_floating_point() else None


class Contrast(Term):
    """What contrastive losses share: linear heads that project either embedding to `dim` numbers of length 1."""

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@pool"

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def build(self, probe: Step) -> None:
        if len(self.pairs) != 1:
            raise StageError(f"a contrastive loss compares one embedding: give one pair of taps, not {len(self.pairs)}")
        mine, theirs = self.embeddings(probe)
        self.mine = nn.Linear(mine.shape[1], self.dim)
        self.theirs = nn.Linear(theirs.shape[1], self.dim)

    def embeddings(self, step: Step) -> tuple[Tensor, Tensor]:
        """The student's and the teacher's, as the networks made them."""
        mine, theirs = next(step.pairs(self.pairs))
        return embedding(mine, step.batch.mask), embedding(theirs, step.batch.mask)

    def projected(self, step: Step) -> tuple[Tensor, Tensor]:
        """(batch, dim) twice, of length 1."""
        mine, theirs = self.embeddings(step)
        return F.normalize(self.mine(mine)), F.normalize(self.theirs(theirs))


def info_nce(student: Tensor, teacher: Tensor, *, temperature: float, classes: Tensor | None = None) -> Tensor:
    """-log softmax of a sample's own teacher among the teachers of the batch, averaged.

    student, teacher: (batch, dim), of length 1. classes: where given, only samples of another class are negatives.
    """
    scores = student @ teacher.T / temperature
    if classes is not None:
        same = classes.unsqueeze(0) == classes.unsqueeze(1)
        same.fill_diagonal_(False)
        scores = scores.masked_fill(same, -math.inf)
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


class InBatchContrast(Contrast):
    """-log [exp(g_s g_t / tau) / sum over the batch of exp(g_s g_t' / tau)]: InfoNCE with in-batch negatives.

    The form of van den Oord et al., 2018 (arXiv:1807.03748), between the embeddings of student and teacher; a
    simplification of CRD (arXiv:1910.10699) that needs no memory. tau 0.07 and dim 128 are CRD's. symmetric: the mean
    of both directions. other_class: negatives are samples of another class, where there are labels, as in CRD.
    """

    def __init__(
        self, *, temperature: float = 0.07, dim: int = 128, symmetric: bool = True, other_class: bool = True
    ) -> None:
        super().__init__(dim=dim)
        self.temperature, self.symmetric, self.other_class = temperature, symmetric, other_class

    def forward(self, step: Step) -> Tensor:
        mine, theirs = self.projected(step)
        classes = classes_of(step) if self.other_class else None
        value = info_nce(mine, theirs, temperature=self.temperature, classes=classes)
        if not self.symmetric:
            return value
        return (value + info_nce(theirs, mine, temperature=self.temperature, classes=classes)) / 2


def noise_contrast(positive: Tensor, negatives: Tensor, counts: Tensor) -> Tensor:
    """-[log h / (h + K) + sum over negatives of log K / (h' + K)], averaged over the batch.

    positive: log h, (batch,). negatives: log h', (batch, candidates), counted where `counts` is True. K: how many
    negatives the sample has.
    """
    many = counts.sum(dim=1).clamp(min=1).log()
    right = F.softplus(many - positive)
    wrong = torch.where(counts, F.softplus(negatives - many.unsqueeze(1)), 0.0).sum(dim=1)
    return (right + wrong).mean()


class MemoryContrast(Contrast):
    """Noise-contrastive estimation with a memory of the whole data set, in both directions (CRD).

    Tian et al., 2019 (arXiv:1910.10699), equation 18: h = exp(g_s g_t / tau) / Z, posterior h / (h + K / N), where Z is
    N times the mean of exp(g_s g_t / tau) in the first batch; N cancels. Defaults as in RepDistiller (K 16384, tau
    0.07, momentum 0.5, dim 128; published weight 0.8). Two things differ from its code: the positive is the pair
    itself, not its copy in the memory, which is an epoch old and random in the first; and a batch shares its negatives,
    of which those of the sample's own class do not count. With several processes each remembers what it has seen.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "index"})
    log_mean: Tensor

    def __init__(
        self, *, negatives: int = 16384, temperature: float = 0.07, momentum: float = 0.5, dim: int = 128
    ) -> None:
        super().__init__(dim=dim)
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self.register_buffer("log_mean", torch.full((2,), math.nan))

    def build(self, probe: Step) -> None:
        super().build(probe)
        self.students, self.teachers = Bank(width=self.dim), Bank(width=self.dim)

    def forward(self, step: Step) -> Tensor:
        mine, theirs = self.projected(step)
        index, classes = step.index().to(mine.device), classes_of(step)
        for bank in (self.students, self.teachers):
            bank.reserve(int(index.max()) + 1)
        drawn = self._draw(mine.device)
        counts = index.unsqueeze(1) != drawn.unsqueeze(0)
        if classes is not None:
            counts = counts & (classes.unsqueeze(1) != self.students.labels[drawn].unsqueeze(0))
        value = self._direction(0, mine, theirs, self.teachers.rows[drawn], counts)
        value = value + self._direction(1, theirs, mine, self.students.rows[drawn], counts)
        self.students.put(index, mine, classes, momentum=self.momentum)
        self.teachers.put(index, theirs, classes, momentum=self.momentum)
        return value

    def _draw(self, device: torch.device) -> Tensor:
        """Indices of candidates: every row while they are few, otherwise with replacement as in the paper."""
        rows = len(self.students)
        if rows <= self.negatives:
            return torch.arange(rows, device=device)
        return torch.randint(rows, (self.negatives,), device=device)

    def _direction(self, which: int, anchor: Tensor, partner: Tensor, others: Tensor, counts: Tensor) -> Tensor:
        positive = (anchor * partner).sum(dim=1) / self.temperature
        negatives = anchor @ others.T / self.temperature
        if bool(self.log_mean[which].isnan()):
            seen = torch.cat([positive, negatives[counts]]).detach()
            self.log_mean[which] = torch.logsumexp(seen, dim=0) - math.log(len(seen))
        mean = self.log_mean[which].clone()  # a later batch must not change what this one's gradient needs
        return noise_contrast(positive - mean, negatives - mean, counts)
