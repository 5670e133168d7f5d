"""Losses on how features change from stage to stage, and on stages one after the other."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .adapters import as_map, channels, meet
from .nouns import Need, Step, Term
from .pairing import Adapted

GROWTH = 3  # epochs of the first stage in InDistill's code; each next one has one more


class FlowOfSolution(Term):
    """Sum of mean((G_s - G_t)^2), G_ij = mean over positions of F_i F_j', for stages that follow each other.

    Yim et al., 2017 (CVPR), FSP. The larger of the two stages is averaged to the size of the smaller. The paper wants
    equal widths; where they differ a 1x1 convolution without bias gives the student's the teacher's: our choice. The
    paper trains in two phases, this loss first: give it a ramp. Usual weight: 50.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@stages"

    def build(self, probe: Step) -> None:
        pairs = [(as_map(mine), as_map(theirs)) for mine, theirs in probe.pairs(self.pairs)]
        if len(pairs) < 2:
            raise StageError("it looks at two stages or more, and these networks have one pair: name taps")
        widths = [(mine.shape[1], theirs.shape[1]) for mine, theirs in pairs]
        self.adapters = nn.ModuleList(nn.Identity() if a == b else nn.Conv2d(a, b, 1, bias=False) for a, b in widths)

    def forward(self, step: Step) -> Tensor:
        pairs = [(as_map(mine), as_map(theirs.detach())) for mine, theirs in step.pairs(self.pairs)]
        mine = [adapt(one) for adapt, (one, _) in zip(self.adapters, pairs, strict=True)]
        theirs = [one for _, one in pairs]
        values = [F.mse_loss(flow(*mine[at : at + 2]), flow(*theirs[at : at + 2])) for at in range(len(pairs) - 1)]
        return torch.stack(values).sum()


class InDistill(Term):
    """mean((F_s - F_t[kept channels])^2) of one stage at a time, from the first to the last, then nothing.

    Sarridis et al., 2022 (arXiv:2205.10003): the teacher's channels are pruned to the student's width, so no adapter
    comes between. The authors remove filters of small L1 norm; here the channels that are most active on the first
    samples stay, as a tap has no filters: our choice. Stages get 3, 4, 5 ... parts of the first `share` of training,
    as in their code; what follows there is PKT on the last one: add `pkt`. Usual weight: 1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@stages"

    def __init__(self, *, share: float = 0.2) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError("share is a part of the training, above 0 and up to 1")
        self.share = share

    def build(self, probe: Step) -> None:
        for index, (mine, theirs) in enumerate(probe.pairs(self.pairs)):
            one, other = meet(mine, theirs)
            axis = 1 + channels(one.shape[1:])
            if one.shape[axis] > other.shape[axis]:
                raise StageError(
                    f"the student is wider ({one.shape[axis]}) at {self.pairs[index][0]} than the teacher "
                    f"({other.shape[axis]}): nothing can be pruned. Use hint, or other taps."
                )
            others = [place for place in range(other.ndim) if place != axis]
            kept = other.abs().mean(dim=others).topk(one.shape[axis]).indices.sort().values
            self.register_buffer(f"kept_{index}", kept)

    def forward(self, step: Step) -> Tensor:
        index = self.stage(step.progress)
        if index is None:
            return step.student.logits.sum() * 0
        mine, theirs = meet(*list(step.pairs(self.pairs))[index])
        kept = self.get_buffer(f"kept_{index}")
        return F.mse_loss(mine, theirs.detach().index_select(1 + channels(mine.shape[1:]), kept))

    def stage(self, progress: float) -> int | None:
        """Which stage is learned now; None: that time is over."""
        parts = [GROWTH + index for index in range(len(self.pairs))]
        gone = progress / self.share * sum(parts)
        for index in range(len(parts)):
            if gone < sum(parts[: index + 1]):
                return index
        return None


class StageByStage(Adapted):
    """mean((a(F_s) - F_t)^2) of stage 1, then 2 ... then the labels' cross-entropy; each in its share of training.

    Kulkarni et al., 2019 (arXiv:1911.06786), for little data; only the abstract and a summary were read. While a stage
    learns, no gradient reaches those before it, and none but the classifier's while the labels are learned; what the
    optimiser still has of momentum and decay does reach them. Stages and classifier get equal shares. a is an adapter
    where widths differ. Give `ce` the weight 0. Usual weight: 1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels"})

    def forward(self, step: Step) -> Tensor:
        count = len(self.pairs)
        index = min(int(step.progress * (count + 1)), count)
        if index > 0:
            hold(step.student.feats[self.pairs[index - 1][0]])
        if index == count:
            return F.cross_entropy(step.student.logits, step.labels())
        mine, theirs = list(step.pairs(self.pairs))[index]
        return self.compare(*meet(mine, theirs.detach()), index)

    def distance(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        return F.mse_loss(student, teacher)


def flow(one: Tensor, after: Tensor) -> Tensor:
    """(batch, channels, channels): how channels of one stage go with those of the next."""
    one, after = meet(one, after)
    return one.flatten(2) @ after.flatten(2).transpose(1, 2) / one[0, 0].numel()


def hold(feature: Tensor) -> None:
    """No gradient passes this feature on its way back, whatever else has been computed from it."""
    node = feature.grad_fn
    if node is not None and type(node).__name__.startswith("ToCopyBackward"):
        node = node.next_functions[0][0]  # the feature was made in lower precision and cast for the losses
    if node is not None:
        node.register_prehook(lambda grads: tuple(None if grad is None else torch.zeros_like(grad) for grad in grads))
