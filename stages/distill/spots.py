"""Decide for each sample and each stage whether the student still has to learn it from its teacher."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ...targets.errors import StageError
from .adapters import adapter, meet, met, pooled
from .nouns import Need, Step
from .pairing import Adapted
from .watching import Place, bare, first_tensor, logits_of

TEACHER = 1  # the choice that takes the teacher's features


class SpotAdaptive(Adapted):
    """Sum over stages of mean((a(F_s) - F_t)^2) over the samples whose stage a policy gives to the teacher.

    Song et al., 2022 (arXiv:2205.02399), SAKD. The policy is a linear layer on both networks' channel means in the last
    stage and draws a choice for each sample and stage (straight-through Gumbel softmax, temperature 5). It learns from
    the cross-entropy of a routed network: where it chose the teacher, the student goes on from b(F_t). In the paper
    both networks are routed, block by block; here only the student is, since stages of a foreign network cannot be run
    one by one; and without the paper's pressure to choose the teacher for half of the samples. That pass reaches the
    policy and the adapters b alone, and costs one more pass of the student in each step. Usual weight: that of hint.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels", "models"})

    def __init__(self, *, temperature: float = 5.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature is above 0")
        self.temperature = temperature

    def build(self, probe: Step) -> None:
        super().build(probe)
        pairs = list(probe.pairs(self.pairs))
        for (tap, _), (mine, theirs) in zip(self.pairs, pairs, strict=True):
            if Place.of(tap).side != "out" or Place.of(tap).call:
                raise StageError(f"it puts other features in the place of {tap}: tap what a module says, once")
            if len(met(mine.shape[1:], theirs.shape[1:])[0]) != mine.ndim - 1:
                raise StageError(f"the teacher's features cannot take the place of {tap}: tokens of another number")
        self.grafts = nn.ModuleList(adapter(theirs.shape[1:], mine.shape[1:]) for mine, theirs in pairs)
        last = sum(pooled(one).shape[1] for one in pairs[-1])
        self.policy = nn.Linear(last, 2 * len(pairs))

    def forward(self, step: Step) -> Tensor:
        choices = self.choose(step)
        values = []
        for index, (mine, theirs) in enumerate(step.pairs(self.pairs)):
            chosen = choices[:, index, TEACHER].detach() > 0.5
            one, other = meet(mine, theirs.detach())
            apart = (self.adapters[index](one) - other).square().flatten(1).mean(dim=1)
            values.append((apart * chosen).mean())
        routed = F.cross_entropy(self.route(step, choices), step.labels())
        return torch.stack(values).sum() + routed

    def choose(self, step: Step) -> Tensor:
        """(batch, stages, 2): one of the two is 1, with the softmax's gradient."""
        last = [one.detach() for one in list(step.pairs(self.pairs))[-1]]
        scores = self.policy(torch.cat([pooled(one) for one in last], dim=1))
        return F.gumbel_softmax(scores.view(len(scores), -1, 2), tau=self.temperature, hard=True)

    def route(self, step: Step, choices: Tensor) -> Tensor:
        """Logits of the student where chosen features are the teacher's; its own parameters get no gradient."""
        assert step.learner is not None, "a term without 'models' in its needs asked for the learner"
        network = bare(step.learner)
        modules = dict(network.named_modules())
        given = [theirs.detach() for _, theirs in step.pairs(self.pairs)]

        def put(index: int, passed: object) -> object:
            mine = first_tensor(passed, self.pairs[index][0])
            share = choices[:, index, TEACHER].view(-1, *[1] * (mine.ndim - 1))
            other, met_mine = meet(given[index], mine)
            grafted = self.grafts[index](other)
            if met_mine.shape != mine.shape:
                grafted = F.interpolate(grafted, mine.shape[2:], mode="nearest")
            mixed = (1 - share) * mine + share * grafted
            return (mixed, *passed[1:]) if isinstance(passed, tuple) else mixed

        handles = [
            modules[Place.of(tap).module].register_forward_hook(
                lambda _module, _given, passed, index=index: put(index, passed)
            )
            for index, (tap, _) in enumerate(self.pairs)
        ]
        frozen = {name: value.detach() for name, value in network.named_parameters()}
        frozen |= {name: value.clone() for name, value in network.named_buffers()}
        modes = [(part, part.training) for part in network.modules()]
        network.eval()
        try:
            return logits_of(functional_call(network, frozen, (step.batch.x,))).float()
        finally:
            for part, mode in modes:
                part.training = mode
            for handle in handles:
                handle.remove()
