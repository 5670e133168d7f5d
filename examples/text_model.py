"""An encoder for texts as a user would write it: BERT's (Devlin et al., 2019, arXiv:1810.04805), small.

    model: examples/text_model.py:teacher
    student: examples/text_model.py:student

It takes numbers of tokens, (batch, length), and finds the padding by itself, so that the exported file has one input.
Why attention is written out is told in attention.py.
"""

import torch
from attention import Attention
from torch import Tensor, nn


class Block(nn.Module):
    """Attention, then two layers for each token by itself; a bypass and a norm around both."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.shrink = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, blank: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, blank)))
        return self.norm(x + self.dropout(self.shrink(self.act(self.grow(x)))))


class Encoder(nn.Module):
    """Embeddings, blocks, and a head on the first token; or on every token."""

    def __init__(
        self, *, vocabulary: int, length: int, classes: int, width: int, blocks: int, heads: int, pad: int = 0,
        every_token: bool = False, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pad, self.every_token = pad, every_token
        self.words = nn.Embedding(vocabulary, width, padding_idx=pad)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(blocks))
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        blank = (tokens == self.pad)[:, None, None, :]
        x = self.dropout(self.norm(self.words(tokens) + self.places))
        for block in self.blocks:
            x = block(x, blank)
        return self.head(x if self.every_token else x[:, 0])


def teacher(*, every_token: bool = False) -> nn.Module:
    """Four blocks, 128 wide: 20 million multiply-accumulates for a text of 24 tokens."""
    return encoder(width=128, blocks=4, heads=4, every_token=every_token)


def student(*, every_token: bool = False) -> nn.Module:
    """Two blocks, 64 wide."""
    return encoder(width=64, blocks=2, heads=4, every_token=every_token)


def encoder(*, width: int, blocks: int, heads: int, every_token: bool = False) -> nn.Module:
    """An encoder for the texts in text_data.py."""
    from text_data import LENGTH, ROLES, VERBS, WORDS

    classes = len(ROLES if every_token else VERBS)
    return Encoder(
        vocabulary=len(WORDS), length=LENGTH, classes=classes, width=width, blocks=blocks, heads=heads,
        every_token=every_token,
    )  # fmt: skip
