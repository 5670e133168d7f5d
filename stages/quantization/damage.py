"""How much a network's answers suffer from rounding, seen from the float network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..comparison import sqnr_db


@dataclass(frozen=True, kw_only=True)
class Damage:
    """loss: of the float answers told by the rounded ones: mean divergence where they are classes, else the power of
    the error over that of the answers. sqnr_db: the power of the answers over that of the error, in decibels.
    """

    loss: float
    sqnr_db: float


def answers(module: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """What a network in eval mode says to all the batches."""
    module.eval()
    with torch.no_grad():
        return torch.cat([module(batch).float() for batch in batches])


def damage(got: Tensor, wanted: Tensor, *, are_classes: bool) -> Damage:
    """Of the answers that were got against the float ones. are_classes: scores of classes, (n, classes)."""
    ratio = sqnr_db(got.numpy(), wanted.numpy())
    if are_classes:
        told, known = F.log_softmax(got, dim=1), F.log_softmax(wanted, dim=1)
        loss = float(F.kl_div(told, known, log_target=True, reduction="batchmean"))
    else:
        loss = 10 ** (-ratio / 10)
    return Damage(loss=loss if torch.isfinite(got).all() else float("inf"), sqnr_db=ratio)
