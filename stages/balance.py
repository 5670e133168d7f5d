"""How hard each loss pulls at the student, and weights that make losses pull in the ratio that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .crew import Crew
from .distill.nouns import Objective, Step

MOST = 1e4  # a loss that hardly pulls, such as imitation of a teacher that the student still equals, is left weak


Gradients = Mapping[str, Sequence[Tensor | None]]  # of each loss before its weight, parameter by parameter


def gradients(values: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> Gradients:
    """Each loss's own gradient, from one backward pass for each."""
    return {
        name: torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        for name, value in values.items()
        if value.requires_grad
    }


def norms(found: Gradients, *, crew: Crew, samples: int) -> dict[str, float]:
    """How hard each loss pulls: the norm of its gradient."""
    fetched = torch.stack([_norm(one, crew, samples) for one in found.values()]).tolist() if found else []
    return dict(zip(found, fetched, strict=True))


def add_(found: Gradients, weights: Mapping[str, float], parameters: Sequence[nn.Parameter]) -> None:
    """Add the weighted sum to the parameters' gradients: what a backward pass of the total would do again."""
    for name, one in found.items():
        for parameter, part in zip(parameters, one, strict=True):
            if part is None:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)  # in the parameter's own memory format
            parameter.grad.add_(part, alpha=weights[name])


def shares(objective: Objective, pulls: Mapping[str, float], step: Step) -> dict[str, float]:
    """Which part of all pull each loss has at this step, with its weight: 0 to 1, adding up to 1."""
    weighted = {part.name: abs(objective.weight(part, step)) * pulls.get(part.name, 0.0) for part in objective.parts}
    total = sum(weighted.values())
    return {name: pull / total if total else 0.0 for name, pull in weighted.items()}


def balance_(objective: Objective, pulls: Mapping[str, float]) -> None:
    """Set the objective's balance so that each loss, at weight 1, pulls alike: as hard as they do on average now.

    The average is over the losses by weight, so the size of the whole gradient, and with it the learning rate, keeps
    its meaning. A loss that was not measured keeps the balance that it has.
    """
    weights = {part.name: abs(part.weight) for part in objective.parts if pulls.get(part.name, 0.0) > 0}
    if not weights:
        return
    usual = sum(weight * pulls[name] for name, weight in weights.items()) / sum(weights.values())
    for name in weights:
        objective.balance[name] = min(MOST, usual / pulls[name])


def _norm(found: Sequence[Tensor | None], crew: Crew, samples: int) -> Tensor:
    there = [one.float() for one in found if one is not None]
    if not there:
        return torch.zeros((), device=crew.device)
    if crew.count > 1:  # the norm of the mean gradient, not the mean of norms
        there = [crew.mean(torch.cat([one.reshape(-1) for one in there]), weight=samples)]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(there)))
    return norm
