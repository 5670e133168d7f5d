"""Attention (Vaswani et al., 2017, arXiv:1706.03762) written out in linear layers and matrix products.

Every exporter knows them, and the linear layers can be quantised. A module of PyTorch's own, such as
nn.MultiheadAttention, is closed to both.
"""

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Each place looks at all others, or at those that are not blank."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, blank: Tensor | None = None) -> Tensor:
        """x: (batch, places, width). blank: (batch, 1, 1, places), True where nothing stands."""
        query, key, value = (self.split(part(x)) for part in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(2, 3)) * self.scale
        weights = (scores if blank is None else scores.masked_fill(blank, -1e4)).softmax(dim=-1)
        return self.out(torch.matmul(weights, value).transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """(batch, places, width) -> (batch, heads, places, width of a head)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)
