"""How parameters are updated: the optimiser, and the learning rate over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from .lesson import Lesson

WARMUP_SHARE = 0.1  # of all steps: the learning rate rises from a twentieth, then falls as a cosine to a hundredth
CLIP_NORM = 5.0  # a rare bad batch must not undo an epoch; ordinary gradients stay below


def optimizer_for(lesson: Lesson, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Weight decay reaches only matrices and kernels: it has no business on a bias, a norm or a scale."""
    wide = [parameter for parameter in parameters if parameter.ndim > 1]
    narrow = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": wide, "weight_decay": lesson.weight_decay},
        {"params": narrow, "weight_decay": 0.0},
    ]
    if lesson.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lesson.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=lesson.lr)


def warm_cosine(steps: int) -> Callable[[int], float]:
    """The share of the peak learning rate at each of `steps` steps."""
    warm = max(1, round(steps * WARMUP_SHARE))

    def factor(step: int) -> float:
        if step < warm:
            return 0.05 + 0.95 * step / warm
        angle = math.pi * min(1.0, (step - warm) / max(1, steps - warm))
        return 0.01 + 0.99 * (1 + math.cos(angle)) / 2

    return factor
