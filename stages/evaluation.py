"""How well a network answers, in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .contract import Preprocessing, Tokens
from .splits import Split, loader

if TYPE_CHECKING:
    from .data import Data

EVAL_BATCH = 256


def logits(module: nn.Module, split: Split, preprocessing: Preprocessing | Tokens) -> tuple[Tensor, Tensor]:
    """Answers and labels of a whole split in its order, both on the CPU. The module's mode is restored."""
    was_training = module.training
    module.eval()
    device = next(module.parameters()).device
    answers, labels = [], []
    with torch.no_grad():
        for images, targets, _ in loader(split, batch_size=EVAL_BATCH, shuffle=False, seed=0, epoch=0):
            answers.append(module(preprocessing.normalize(images.to(device))).float().cpu())
            labels.append(targets)
    module.train(was_training)
    return torch.cat(answers), torch.cat(labels)


def quality(module: nn.Module, split: Split, data: Data) -> float:
    """The task's figure on a split, in per cent, higher is better."""
    answers, labels = logits(module, split, data.preprocessing)
    return data.task.judge().value(answers.numpy(), labels.numpy())


def accuracy(module: nn.Module, split: Split, preprocessing: Preprocessing | Tokens) -> float:
    """Share of a split that is answered rightly, in per cent, where each sample has one class."""
    answers, labels = logits(module, split, preprocessing)
    return 100.0 * float((answers.argmax(dim=1) == labels).float().mean())
