"""What it does to the answers when one group alone is pruned: estimates of importance, put on one scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .allocate import Importance
from .cutting import Groups, slim

MACS = 1.2e12  # for all groups together, a minute of one core: of large networks, fewer images are answered
FEWEST, MOST = 8, 256  # images


def calibrated(
    module: nn.Module,
    groups: Groups,
    importance: Importance,
    images: Tensor,
    *,
    macs: int,
    told: Callable[[str, float], None] = lambda text, share: None,
) -> Importance:
    """The same ranking of channels, with the harm that was measured at two widths of each group.

    First and second order rank the channels of one group well, and say little about how far whole groups, let alone
    whole blocks, can be compared; so as NetAdapt does, what a group costs is read from the answers: the divergence of
    the pruned network's from the whole one's, which needs no labels. images: as the network takes them. macs: of one.
    """
    names = list(groups.found)
    images = images[: max(FEWEST, min(MOST, int(MACS / max(1, macs) / (2 * len(names)))))]
    with torch.no_grad():
        before = module.eval()(images)
    harm: dict[str, list[tuple[float, float]]] = {}
    for place, name in enumerate(names):
        told(f"what pruning {name} does to the answers", place / len(names))
        group = groups.found[name]
        points, most = [(0.0, 0.0)], 0.0
        for width in dict.fromkeys((group.widths[(len(group.widths) - 1) // 2], group.widths[-1])):
            small = slim(module, [group], {name: importance.best(name, width)})
            with torch.no_grad():
                most = max(most, divergence(small(images), before))
            points.append((importance.lost(name, width), most))
        harm[name] = points
    return replace(importance, harm=harm)


def divergence(answers: Tensor, wanted: Tensor) -> float:
    """How far answers are from those of another network: Kullback-Leibler where they are scores of classes, else the
    mean square of the difference, as a share of the variance."""
    if wanted.ndim == 2 and wanted.shape[1] > 1:
        found = F.kl_div(
            F.log_softmax(answers, dim=1), F.log_softmax(wanted, dim=1), log_target=True, reduction="batchmean"
        )
        return max(0.0, float(found))
    return float(((answers - wanted) ** 2).mean() / wanted.var().clamp(min=1e-12))
