"""Small networks that the benchmarks of distillation teach and learn with."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parent.parent / "examples"))
from my_model import resnet20, resnet56

__all__ = ["Cnn", "big_cnn", "macs", "resnet20", "resnet56", "small_cnn"]


class Cnn(nn.Module):
    """Three groups of 3 x 3 convolutions with batch norm, each at half the resolution of the one before."""

    def __init__(self, channels: int, widths: tuple[int, int, int], *, depth: int, classes: int) -> None:
        super().__init__()
        first, second, third = widths
        self.first = group(channels, first, depth)
        self.second = group(first, second, depth)
        self.third = group(second, third, depth)
        self.head = nn.Linear(third, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.third(self.second(self.first(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def group(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """The first convolution halves the resolution."""
    parts: list[nn.Module] = []
    for place in range(depth):
        parts += [
            nn.Conv2d(outputs if place else inputs, outputs, 3, stride=1 if place else 2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*parts)


def big_cnn(channels: int, classes: int = 10) -> nn.Module:
    """A teacher: 9.7 million multiply-accumulates for 3 x 32 x 32."""
    return Cnn(channels, (32, 64, 128), depth=2, classes=classes)


def small_cnn(channels: int, classes: int = 10) -> nn.Module:
    """A student: 0.4 million multiply-accumulates for 3 x 32 x 32."""
    return Cnn(channels, (12, 24, 48), depth=1, classes=classes)


def macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image."""
    import torch

    total = 0

    def count(part: nn.Module, _given: object, answer: Tensor) -> None:
        nonlocal total
        weight = part.weight
        assert isinstance(weight, Tensor)
        total += weight.numel() * (answer.shape[2] * answer.shape[3] if answer.ndim == 4 else 1)

    handles = [part.register_forward_hook(count) for part in net.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        net.eval()(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return total
