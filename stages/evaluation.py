"""How often a network is right, in torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .contract import Preprocessing
from .data import Split, loader

EVAL_BATCH = 256


def logits(module: nn.Module, split: Split, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Answers and labels of a whole split in its order: (n, classes), (n,). The module's mode is restored."""
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


def accuracy(module: nn.Module, split: Split, preprocessing: Preprocessing) -> float:
    """Share of a split that is answered rightly, in per cent."""
    answers, labels = logits(module, split, preprocessing)
    return 100.0 * float((answers.argmax(dim=1) == labels).float().mean())
