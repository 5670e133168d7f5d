"""Networks for benchmarks/prune_to_latency.py at 224 pixels: ResNet-18 and MobileNetV2, as their papers have them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from guard_nets import InvertedResidual
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """He et al., 2016 (arXiv:1512.03385), with a 1 x 1 convolution as shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        changes = stride > 1 or inputs != outputs
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if changes
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """1.8 billion multiply-accumulates at 224 pixels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        widths = (64, 64, 128, 256, 512)
        self.blocks = nn.Sequential(
            *(
                BasicBlock(widths[place] if first else outputs, outputs, 2 if first and place else 1)
                for place, outputs in enumerate(widths[1:])
                for first in (True, False)
            )
        )
        self.head = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.max_pool2d(self.stem(x), 3, 2, 1))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class MobileNetV2(nn.Module):
    """Sandler et al., 2018 (arXiv:1801.04381): 0.3 billion multiply-accumulates at 224 pixels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        plan = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        blocks: list[nn.Module] = []
        inside = 32
        for expand, width, count, stride in plan:
            for place in range(count):
                step = stride if place == 0 else 1
                blocks.append(InvertedResidual(inside, width, stride=step, expand=expand, kernel=3))
                inside = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.Conv2d(inside, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6())
        self.head = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def settled(module: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Batch norms that have seen something, so that no channel is silent in a network of random weights."""
    generator = torch.Generator().manual_seed(0)
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(8, *shape, generator=generator))
    return module.eval()
