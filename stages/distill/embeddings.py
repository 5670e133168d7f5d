"""Losses on the vector before the classifier: weighed by certainty, against other classes, in length and direction."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .adapters import adapter
from .contrastive import classes_of, embedding
from .nouns import Need, Step, Term
from .response import above_zero, average

EPS = 1e-6


class Embedded(Term):
    """What these losses share: one pair of embeddings, the student's through a linear layer where the widths differ."""

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@pool"

    def build(self, probe: Step) -> None:
        if len(self.pairs) != 1:
            raise StageError(f"a loss on embeddings compares one: give one pair of taps, not {len(self.pairs)}")
        mine, theirs = next(probe.pairs(self.pairs))
        mine, theirs = embedding(mine), embedding(theirs)
        self.width = theirs.shape[1]
        self.adapter = adapter(mine.shape[1:], theirs.shape[1:])

    def embeddings(self, step: Step) -> tuple[Tensor, Tensor]:
        """(batch, width of the teacher) of the student and of the teacher."""
        mine, theirs = next(step.pairs(self.pairs))
        return self.adapter(embedding(mine, step.batch.mask)), embedding(theirs, step.batch.mask)


def refuse_positions(probe: Step, *, loss: str) -> None:
    """StageError: samples have no class, but many, or one at each position."""
    if classes_of(probe) is None or probe.student.logits.ndim != 2:
        raise StageError(f"the loss {loss} needs one class for each sample, and these labels are something else")


class PrimeAware(Embedded):
    """mean [ (f_s - f_t)^2 / (1e-6 + v) + log v ], v = exp(BN(W f_s)): a variance predicted for each sample and number.

    PAD: Zhang et al., 2020 (arXiv:2008.01458), with the variance branch of a linear layer and a batch norm that
    torchdistill has for it. Samples that the student cannot follow get a large variance and count less. Torchdistill
    trains the embeddings by squared error first and adds the branch in a second stage; `ramp` can do as much.
    """

    def build(self, probe: Step) -> None:
        super().build(probe)
        self.variance = nn.Sequential(nn.Linear(self.width, self.width), nn.BatchNorm1d(self.width))

    def forward(self, step: Step) -> Tensor:
        mine, theirs = self.embeddings(step)
        log_variance = self.variance(mine)
        return average((mine - theirs).square() / (EPS + log_variance.exp()) + log_variance)


class Triplet(Embedded):
    """mean over others of max(0, |f_s(a) - f_t(a)| - |f_s(a) - f_t(n)| + margin), n of another class than a.

    Oki et al., 2020 (arXiv:2004.08116), of which the abstract was read: triplets of outputs in which the student is
    drawn to its teacher and told from the teacher's outputs for other objects. Ours: embeddings of length 1, so that
    the margin has a scale, all the batch's samples of other classes as negatives, and the margin of 0.3.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels"})

    def __init__(self, *, margin: float = 0.3) -> None:
        super().__init__()
        above_zero(margin=margin)
        self.margin = margin

    def build(self, probe: Step) -> None:
        super().build(probe)
        refuse_positions(probe, loss="triplet")

    def forward(self, step: Step) -> Tensor:
        mine, theirs = (F.normalize(said) for said in self.embeddings(step))
        # From inner products, and with a floor: the gradient of a distance of 0 does not exist.
        apart = (2 - 2 * mine @ theirs.T).clamp_min(EPS).sqrt()
        negative = step.labels().unsqueeze(1) != step.labels().unsqueeze(0)
        loss = F.relu(apart.diagonal().unsqueeze(1) - apart + self.margin)
        return (loss * negative).sum() / negative.sum().clamp_min(1)


class NormAndDirection(Embedded):
    """mean_b [ 1 - f_s . e_y / max(|f_s|, |f_t|) ], e_y = the teacher's mean embedding of the class, of length 1.

    ND loss of KD++: Wang et al., 2023 (arXiv:2305.17007): the student's embedding should point to the class's mean and
    be as long as the teacher's. It is added to another loss with weight 1. The authors compute the means over the
    training set beforehand; here they are the running means of all that the teacher has said of each class while
    training, which are those of the training set after one epoch.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels"})

    means: Tensor
    seen: Tensor

    def build(self, probe: Step) -> None:
        super().build(probe)
        refuse_positions(probe, loss="nd")
        classes = probe.student.logits.shape[1]
        self.register_buffer("means", torch.zeros(classes, self.width))
        self.register_buffer("seen", torch.zeros(classes))

    def forward(self, step: Step) -> Tensor:
        mine, theirs = self.embeddings(step)
        if self.training:
            self._remember(theirs.detach(), step.labels())
        direction = F.normalize(self.means)[step.labels()]
        longest = torch.maximum(mine.norm(dim=1), theirs.norm(dim=1)).clamp_min(EPS)
        return average(1 - (mine * direction).sum(dim=1) / longest)

    @torch.no_grad()
    def _remember(self, theirs: Tensor, target: Tensor) -> None:
        counts = torch.zeros_like(self.seen).index_add_(0, target, torch.ones_like(target, dtype=self.seen.dtype))
        sums = torch.zeros_like(self.means).index_add_(0, target, theirs)
        self.seen += counts
        self.means += (sums - counts.unsqueeze(1) * self.means) / self.seen.clamp_min(1).unsqueeze(1)
