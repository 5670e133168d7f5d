"""A network as a user would write it: the ResNet for CIFAR of He et al., 2016 (arXiv:1512.03385), section 4.2.

    model:
      source: examples/my_model.py:resnet20
      weights: resnet20.th

Names of parameters are those of the widely used checkpoints (conv1, bn1, layer1.0.conv1, ..., linear), and
the shortcuts have no parameters (the paper's option A), so these checkpoints load as they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; where the width doubles the resolution halves."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.missing = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Every second pixel, and zeros for the channels that x lacks: half of them before, half of them after."""
        if self.missing == 0:
            return x
        side = self.missing // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))


class ResNet(nn.Module):
    """Three groups of `blocks` blocks at 32, 16 and 8 pixels, 16, 32 and 64 channels wide."""

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = group(16, 16, blocks)
        self.layer2 = group(16, 32, blocks)
        self.layer3 = group(32, 64, blocks)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def group(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """Blocks in a row, the first of which changes the width."""
    return nn.Sequential(*(Block(inputs if index == 0 else outputs, outputs) for index in range(blocks)))


def resnet20(num_classes: int = 10) -> nn.Module:
    """0.27 million parameters, 41 million multiply-accumulates."""
    return ResNet(3, num_classes)


def resnet56(num_classes: int = 10) -> nn.Module:
    """0.85 million parameters, 126 million multiply-accumulates."""
    return ResNet(9, num_classes)
