"""How much each channel matters: by its weights, by its batch norm, or by what the loss says on data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .allocate import Floats, Importance
from .cutting import Edge, Group
from .groups import BATCH_NORMS, CONVS

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


def by_weights(module: nn.Module, groups: Mapping[str, Group]) -> Importance:
    """Mean square of everything that a channel's weights are, in all layers of its group (Fang et al., 2023)."""
    return _relative(groups, lambda edge, part: _per_place(part.weight.detach() ** 2, edge, part), module)


def by_batch_norm(module: nn.Module, groups: Mapping[str, Group]) -> Importance:
    """Size of the factors of batch norms (network slimming, Liu et al., 2017, arXiv:1708.06519).

    Groups that no batch norm scales are ranked by their weights, and compared with the others by their own mean.
    """
    scores = dict(by_weights(module, groups).scores)
    parts: dict[str, Any] = dict(module.named_modules())
    for name, group in groups.items():
        norms = [edge for edge in group.edges if isinstance(parts.get(edge.module), BATCH_NORMS)]
        if norms and all(parts[edge.module].affine for edge in norms):
            found = sum(_by_channel(parts[edge.module].weight.detach().abs(), edge, group) for edge in norms)
            assert isinstance(found, np.ndarray)
            scores[name] = found / max(float(found.mean()), 1e-12)
    return Importance(scores=scores)


def by_gradients(module: nn.Module, groups: Mapping[str, Group], batches: Batches, loss: Loss) -> Importance:
    """What the loss would change by if nobody listened to a channel, to first order: the square of the sum of weight
    times gradient over all weights that read the channel, averaged over batches (Molchanov et al., 2019,
    arXiv:1906.10771, with the gate at the channel's readers). Comparable between groups as it is."""

    def of(weight: Tensor, gradient: Tensor, edge: Edge, part: Any) -> Tensor:
        return _per_place(weight * gradient, edge, part)

    return _summed(module, groups, batches, loss, of, after=np.square)


def by_curvature(module: nn.Module, groups: Mapping[str, Group], batches: Batches, loss: Loss) -> Importance:
    """The same to second order, with the squared gradients of small batches for the diagonal of the Hessian (optimal
    brain damage, LeCun et al., 1989; Fisher instead of the Hessian as in Theis et al., 2018, arXiv:1801.05787)."""

    def of(weight: Tensor, gradient: Tensor, edge: Edge, part: Any) -> Tensor:
        return _per_place((weight * gradient) ** 2, edge, part)

    return _summed(module, groups, batches, loss, of)


def _summed(
    module: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches,
    loss: Loss,
    of: Callable[[Tensor, Tensor, Edge, Any], Tensor],
    after: Callable[[Floats], Floats] = lambda values: values,
) -> Importance:
    work = copy.deepcopy(module).eval().requires_grad_(True)
    parts: dict[str, Any] = dict(work.named_modules())
    scores: dict[str, Floats] = {name: np.zeros(group.width) for name, group in groups.items()}
    count = 0
    for images, labels in batches:
        work.zero_grad()
        loss(work(images), labels).backward()  # type: ignore[no-untyped-call]
        count += 1
        for name, group in groups.items():
            found = np.zeros(group.width)
            for edge in _readers(group, parts):
                part = parts[edge.module]
                found += _by_channel(of(part.weight.detach(), part.weight.grad, edge, part), edge, group)
            scores[name] += after(found)
    assert count, "importance from data needs a batch"
    return Importance(scores={name: values / count for name, values in scores.items()})


def _readers(group: Group, parts: Mapping[str, Any]) -> list[Edge]:
    """Where the channels are listened to; of a group that nobody reads, where they are made."""
    weighted = [edge for edge in group.edges if isinstance(parts.get(edge.module), (nn.Linear, *CONVS))]
    used = [edge for edge in weighted if parts[edge.module].weight.grad is not None]
    return [edge for edge in used if edge.side == "in"] or used


def _relative(groups: Mapping[str, Group], of: Callable[[Edge, Any], Tensor], module: nn.Module) -> Importance:
    """Means over a group's layers, as shares of the group's mean: weights of different layers are not comparable."""
    parts: dict[str, Any] = dict(module.named_modules())
    scores = {}
    for name, group in groups.items():
        found = [
            _by_channel(of(edge, parts[edge.module]), edge, group)
            for edge in group.edges
            if isinstance(parts.get(edge.module), (nn.Linear, *CONVS))
        ]
        mean = np.mean(found, axis=0)
        scores[name] = mean / max(float(mean.mean()), 1e-12)
    return Importance(scores=scores)


def _per_place(values: Tensor, edge: Edge, part: Any) -> Tensor:
    """The sum for each place of the side that an edge is."""
    transposed = isinstance(part, CONVS) and part.transposed
    dim = 1 if (edge.side == "in") != transposed else 0
    return values.transpose(0, dim).flatten(1).sum(dim=1)


def _by_channel(per_place: Tensor, edge: Edge, group: Group) -> Floats:
    found = torch.zeros(group.width, dtype=torch.float64)
    places = per_place.double()[torch.tensor(edge.places)]
    return found.index_add_(0, torch.tensor(edge.channels), places).numpy()
