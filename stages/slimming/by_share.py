"""Every group of channels keeps the same share: where channels cannot be ranked over all layers at once."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from ...targets.errors import UnfitError
from ..artifact import Context
from ..prune import Prune
from .cutting import Group, slim
from .importance import Loss
from .setup import groups_of, ranked


def by_share(
    settings: Prune, module: nn.Module, example: Tensor, context: Context, loss: Loss, *, ratio: float
) -> nn.Module | None:
    """A copy in which each group has lost that share of its least important channels. None: there is no such group.

    Groups are those that pruning to a budget tries out one by one, so that one that cannot be cut costs no other. Heads
    of attentions stay.
    """
    kind = "magnitude" if settings.importance == "auto" else settings.importance
    settings = replace(settings, importance=kind, blocks=False)
    try:
        every = groups_of(settings, module, example, context)
    except UnfitError:
        return None
    channels = {name: group for name, group in every.found.items() if not group.counts}
    if not channels:
        return None
    importance = ranked(settings, module, replace(every, found=channels), context, loss)
    widths = {name: _nearest(group, (1 - ratio) * group.width) for name, group in channels.items()}
    kept = {name: importance.best(name, width) for name, width in widths.items() if width < channels[name].width}
    return slim(module, channels.values(), kept) if kept else None


def _nearest(group: Group, width: float) -> int:
    return min((group.width, *group.widths), key=lambda one: abs(one - width))
