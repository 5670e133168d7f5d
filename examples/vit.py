"""A small vision transformer (Dosovitskiy et al., 2021, arXiv:2010.11929) as a user would write it.

    model: {source: examples/vit.py:teacher, arguments: {size: 32, channels: 3, num_classes: 10}}
    student: {source: examples/vit.py:student, arguments: {size: 32, channels: 3, num_classes: 10}}

Attention is written out in linear layers and matrix products, which every exporter knows and which can be quantised.
"""

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Each patch looks at all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self.split(part(x)) for part in (self.query, self.key, self.value))
        weights = (torch.matmul(query, key.transpose(2, 3)) * self.scale).softmax(dim=-1)
        return self.out(torch.matmul(weights, value).transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """(batch, patches, width) -> (batch, heads, patches, width of a head)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


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
