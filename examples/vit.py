"""A small vision transformer (Dosovitskiy et al., 2021, arXiv:2010.11929) as a user would write it.

    model: {source: examples/vit.py:teacher, arguments: {size: 32, channels: 3, num_classes: 10}}
    student: {source: examples/vit.py:student, arguments: {size: 32, channels: 3, num_classes: 10}}

Why attention is written out is told in attention.py.
"""

import torch
from attention import Attention
from torch import Tensor, nn


class Block(nn.Module):
    """Attention and two layers for each patch, a norm before and a bypass around both."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.shrink(self.act(self.grow(self.norm(x))))


class ViT(nn.Module):
    """Patches become tokens, blocks mix them, and the head looks at their mean."""

    def __init__(
        self, *, size: int, channels: int, num_classes: int, patch: int, width: int, blocks: int, heads: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.places = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


def teacher(*, size: int = 32, channels: int = 3, num_classes: int = 10, patch: int = 4) -> nn.Module:
    """Six blocks, 128 wide."""
    return ViT(size=size, channels=channels, num_classes=num_classes, patch=patch, width=128, blocks=6, heads=4)


def student(*, size: int = 32, channels: int = 3, num_classes: int = 10, patch: int = 4) -> nn.Module:
    """Three blocks, 64 wide."""
    return ViT(size=size, channels=channels, num_classes=num_classes, patch=patch, width=64, blocks=3, heads=4)
