"""Contrast by transport: how far the student's batch of embeddings has to be moved to become the teacher's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .contrastive import Contrast
from .nouns import Step


@torch.no_grad()
def sinkhorn(cost: Tensor, *, blur: float, rounds: int) -> Tensor:
    """The plan, (rows, columns), that moves equal masses at the least cost plus `blur` times its negative entropy.

    Cuturi, 2013 (arXiv:1306.0895), with logarithms. Its columns add up to 1 / columns exactly, its rows to 1 / rows
    nearly: nearer with more rounds.
    """
    scaled = -cost / blur
    left, right = scaled.new_zeros(len(cost)), scaled.new_zeros(cost.shape[1])
    for _ in range(rounds):
        left = -math.log(len(cost)) - torch.logsumexp(scaled + right, dim=1)
        right = -math.log(cost.shape[1]) - torch.logsumexp(scaled + left.unsqueeze(1), dim=0)
    return (scaled + left.unsqueeze(1) + right).exp()


class Critic(nn.Module):
    """Scores pairs of embeddings; its slope is at most 1, because both layers have spectral norm 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Linear(2 * dim, dim))
        self.last = spectral_norm(nn.Linear(dim, 1))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(students, teachers): the score of each combination."""
        rows, columns = len(student), len(teacher)
        pairs = torch.cat(
            [student.unsqueeze(1).expand(-1, columns, -1), teacher.unsqueeze(0).expand(rows, -1, -1)], dim=2
        )
        scores: Tensor = self.last(self.first(pairs).relu())
        return scores.squeeze(2)


class WassersteinContrast(Contrast):
    """A global and a local term from both forms of the Wasserstein distance (WCoRD).

    Chen et al., 2021 (arXiv:2012.08674). Read from the abstract: the dual form is a contrastive objective, the primal
    one matches the features within a mini-batch. global_weight * -(mean critic of pairs - mean critic of strangers),
    the critic having a slope of at most 1 and learning with the student; local_weight * <plan, 1 - cos>, the plan being
    Sinkhorn's, held still for the gradient. The weights 0.8 and 0.05 are remembered, not verified; strangers from the
    batch alone, the critic's two layers, blur 0.1 and 50 rounds are ours.
    """

    def __init__(
        self,
        *,
        global_weight: float = 0.8,
        local_weight: float = 0.05,
        blur: float = 0.1,
        rounds: int = 50,
        dim: int = 128,
    ) -> None:
        super().__init__(dim=dim)
        self.global_weight, self.local_weight = global_weight, local_weight
        self.blur, self.rounds = blur, rounds
        self.critic = Critic(dim)

    def forward(self, step: Step) -> Tensor:
        mine, theirs = self.projected(step)
        cost = 1 - mine @ theirs.T
        local = (sinkhorn(cost.detach(), blur=self.blur, rounds=self.rounds) * cost).sum()
        return self.global_weight * self.lifted(mine, theirs) + self.local_weight * local

    def lifted(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """How much higher the critic scores strangers than pairs; negative once it can tell them apart."""
        scores: Tensor = self.critic(mine, theirs)
        strangers = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        if len(scores) < 2:
            return scores.sum() * 0.0
        return scores[strangers].mean() - scores.diagonal().mean()
