"""Networks for benchmarks/guard.py: an ordinary one, and two that are mostly depthwise convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10


class Block(nn.Module):
    """A residual block with batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    """Stem, three residual blocks, pool, head."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(3)))
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al., 2018): widen, depthwise, narrow, and a skip where shapes allow it."""

    def __init__(self, inside: int, outside: int, *, stride: int, expand: int, kernel: int) -> None:
        super().__init__()
        hidden = inside * expand
        self.skips = stride == 1 and inside == outside
        self.body = nn.Sequential(
            nn.Conv2d(inside, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, outside, 1, bias=False), nn.BatchNorm2d(outside),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skips else self.body(x)


class MobileNet(nn.Module):
    """MobileNetV2 at half width. kernel: of the depthwise layers."""

    def __init__(self, *, kernel: int = 3) -> None:
        super().__init__()
        plan = ((16, 1, 1), (24, 2, 2), (32, 2, 2), (48, 2, 2), (80, 1, 1))  # width, blocks, stride of the first
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        blocks: list[nn.Module] = []
        inside = 16
        for width, count, stride in plan:
            for place in range(count):
                blocks.append(
                    InvertedResidual(inside, width, stride=stride if place == 0 else 1, expand=6, kernel=kernel)
                )
                inside = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inside, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


class DepthwiseStack(nn.Module):
    """Nothing but depthwise convolutions between a stem and a head: the worst case for INT8."""

    def __init__(self, *, channels: int = 64, depth: int = 8, kernel: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.body = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                )
                for _ in range(depth)
            )
        )
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.body(self.stem(x)), 1).flatten(1))


class Fire(nn.Module):
    """A narrow convolution, and two behind it whose answers are put side by side."""

    def __init__(self, inputs: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, narrow, 1)
        self.expand1, self.expand3 = nn.Conv2d(narrow, wide, 1), nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1(x)), F.relu(self.expand3(x))], 1)


class SqueezeNet(nn.Module):
    """Iandola et al., 2016 (arXiv:1602.07360), as its version 1.1 has it."""

    def __init__(self) -> None:
        super().__init__()

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 2), nn.ReLU())
        self.fires = nn.Sequential(
            pool(), Fire(64, 16, 64), Fire(128, 16, 64),
            pool(), Fire(128, 32, 128), Fire(256, 32, 128),
            pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        )  # fmt: skip
        self.head = nn.Conv2d(512, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(F.relu(self.head(self.fires(self.stem(x)))), 1).flatten(1)


class Squeezing(nn.Module):
    """MBConv: an inverted residual with SiLU, whose channels are weighed by what their means say."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expand: int, kernel: int) -> None:
        super().__init__()
        inside = inputs * expand
        self.skips = stride == 1 and inputs == outputs
        self.expand = normed(inputs, inside, 1) if expand > 1 else nn.Identity()
        self.depthwise = normed(inside, inside, kernel, stride=stride, groups=inside)
        self.squeeze, self.excite = nn.Conv2d(inside, inputs // 4, 1), nn.Conv2d(inputs // 4, inside, 1)
        self.project = nn.Sequential(nn.Conv2d(inside, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = y * torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return x + self.project(y) if self.skips else self.project(y)


class EfficientNet(nn.Module):
    """Tan and Le, 2019 (arXiv:1905.11946): B0, 0.39 billion multiply-accumulates at 224 pixels."""

    def __init__(self) -> None:
        super().__init__()
        # times wider inside, width, blocks, stride of the first, kernel
        plan = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
                (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))  # fmt: skip
        blocks: list[nn.Module] = []
        inside = 32
        for expand, width, count, stride, kernel in plan:
            for place in range(count):
                first = stride if place == 0 else 1
                blocks.append(Squeezing(inside, width, stride=first, expand=expand, kernel=kernel))
                inside = width
        self.body = nn.Sequential(normed(3, 32, 3, stride=2), *blocks, normed(inside, 1280, 1))
        self.head = nn.Linear(1280, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.body(x), 1).flatten(1))


def normed(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Module:
    """A convolution, its batch norm and SiLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())


def seeded(module: nn.Module) -> nn.Module:
    """The same weights each time, spread so that every class is answered now and then."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                fan_in = part.weight[0].numel()
                part.weight.copy_(torch.randn(part.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
    return module.eval()
