"""How much each of several teachers counts for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .nouns import Batch, Need, Objective, Out, Step, Term
from .teacher_settings import Weigh

Weigher = Callable[[Sequence[Out], Batch], Tensor]  # -> (teachers, batch), adding up to 1 over the teachers
FASTER = 10.0  # the weights are that many times their parameter, so that they settle within an epoch at usual rates


def weigher_for(weigh: Weigh, objective: Objective, probe: Batch) -> Weigher | None:
    """What gives each teacher its weight; None: all count alike. StageError: it needs labels and there are none."""
    if weigh in ("confidence", "learned") and probe.y is None:
        raise StageError(
            f"weigh: {weigh} looks at how often each teacher is right, and these data have no labels. "
            "Use entropy, or alike."
        )
    if weigh == "learned":
        return next((part.term.weigh for part in objective.parts if isinstance(part.term, Stacking)), None)
    return {"alike": None, "confidence": confidence, "entropy": entropy}[weigh]


def confidence(answers: Sequence[Out], batch: Batch) -> Tensor:
    """w_k = (1 - softmax_k(CE_k)) / (K - 1): who is confident and right counts most, sample by sample.

    Zhang et al., 2022 (CA-MKD, arXiv:2201.00007). A single teacher has the weight 1; the authors' code divides by 0.
    """
    assert batch.y is not None, "confidence needs labels"
    labels = batch.y
    return _rest(torch.stack([_each_sample(_cross_entropy(said.logits, labels), batch) for said in answers]).softmax(0))


def entropy(answers: Sequence[Out], batch: Batch) -> Tensor:
    """w_k = (1 - H_k / sum_j H_j) / (K - 1): who is sure counts most, right or not; no labels are needed.

    The entropy-based weights that Zhang et al., 2022 (CA-MKD, arXiv:2201.00007) compare with (EBKD, after Kwon et
    al., ICASSP 2020), as their code has them; there they add up to K - 1, here to 1.
    """
    each = torch.stack([_each_sample(_entropy(said.logits), batch) for said in answers])
    total = each.sum(0, keepdim=True)
    alike = torch.full_like(each, 1 / len(each))
    least = torch.finfo(each.dtype).tiny  # below it numbers lose digits, and quotients no longer add up
    return _rest(torch.where(total > least, each / total.clamp(min=least), alike))


class Stacking(Term):
    """Weights for the teachers such that their mixture is right: w = softmax(a), loss CE(sum_k w_k p_k, y).

    Stacked generalisation (Wolpert, 1992) with one weight for each teacher. The weights are learned from the labels
    alone: learned from the imitation losses, as the path weights of Chennupati et al., 2021 (arXiv:2110.09674) are,
    they would move to whoever is easiest to imitate. `weigh: learned` adds this term; the student gets no gradient.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "teachers"})
    every_teacher: ClassVar[bool] = True

    def build(self, probe: Step) -> None:
        self.preference = nn.Parameter(torch.zeros(len(probe.teachers)))

    def weights(self) -> Tensor:
        """(teachers,), adding up to 1."""
        return (FASTER * self.preference).softmax(0)

    def weigh(self, answers: Sequence[Out], batch: Batch) -> Tensor:
        """The weights as they are now, the same for every sample."""
        return self.weights().detach()[:, None].expand(len(answers), len(batch.x))

    def forward(self, step: Step) -> Tensor:
        spoken = torch.stack([_last(said.logits).log_softmax(-1) for said in step.teachers.values()])
        shares = self.weights().log().view(-1, *[1] * (spoken.ndim - 1))
        mixture = (spoken + shares).logsumexp(0)
        labels = step.labels()
        if step.batch.mask is not None:
            mixture, labels = mixture[step.batch.mask.bool()], labels[step.batch.mask.bool()]
        return F.nll_loss(mixture.flatten(0, -2), labels.flatten())


class Camkd(Term):
    """Hints from several teachers, weighed sample by sample: for each k, mean_b w_kb mean((phi_k(f_s) - f_k)^2).

    Zhang et al., 2022 (CA-MKD, arXiv:2201.00007), who weigh it by 50. f: the embeddings before the last linear layer,
    phi_k: a linear layer where the widths differ. w: from `weigh`, meant to be `confidence`; the authors' code takes
    the weights of this part from the teachers' classifiers applied to phi_k(f_s), and divides by K once more.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@pool"
    weighs_samples: ClassVar[bool] = True

    def build(self, probe: Step) -> None:
        self.adapters = nn.ModuleList(
            nn.Identity() if mine.shape[-1] == theirs.shape[-1] else nn.Linear(mine.shape[-1], theirs.shape[-1])
            for mine, theirs in probe.pairs(self.pairs)
        )

    def forward(self, step: Step) -> Tensor:
        errors = [
            (adapter(mine) - theirs).square().flatten(1).mean(1)
            for adapter, (mine, theirs) in zip(self.adapters, step.pairs(self.pairs), strict=True)
        ]
        return (torch.stack(errors).sum(0) * step.shares()[0]).mean()


def _rest(shares: Tensor) -> Tensor:
    """What others do not have, so that a large share is a small weight; (teachers, ...), adding up to 1 again."""
    count = len(shares)
    return (1 - shares) / (count - 1) if count > 1 else torch.ones_like(shares)


def _last(logits: Tensor) -> Tensor:
    """Classes on the last axis."""
    return logits.movedim(1, -1) if logits.ndim == 4 else logits


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """At every position: (batch, ...)."""
    last = _last(logits)
    return F.cross_entropy(last.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)


def _entropy(logits: Tensor) -> Tensor:
    spoken = _last(logits).log_softmax(-1)
    return -(spoken.exp() * spoken).sum(-1)


def _each_sample(values: Tensor, batch: Batch) -> Tensor:
    """(batch,): the mean over the positions that count."""
    if values.ndim == 1:
        return values
    if batch.mask is None:
        return values.flatten(1).mean(1)
    counts = batch.mask.to(values.dtype)
    return (values * counts).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)
