"""Small transformers as the libraries build them: fused and separate projections, torch's own layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fused(nn.Module):
    """Attention of ViTs: one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(x).reshape(batch, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(x.shape))


class ViTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Fused(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches of 2 x 2 pixels of an 8 x 8 image, a class token, blocks, a head."""

    def __init__(self, *, width: int = 12, depth: int = 3, heads: int = 3, classes: int = 4, patch: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(ViTBlock(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class SelfAttention(nn.Module):
    """BERT's names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        batch, length, width = hidden_states.shape
        parts = [
            layer(hidden_states).view(batch, length, self.num_attention_heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        return F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(batch, length, width), None


class BertLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(width, heads)})
        self.output = nn.Linear(width, width)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor]:
        return (hidden_states + self.output(self.attention["self"](hidden_states)[0]),)


class Encoder(nn.Module):
    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(width, heads) for _ in range(depth))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for layer in self.layer:
            x = layer(hidden_states=x)[0]
        return {"last_hidden_state": x}


class Bert(nn.Module):
    """Token numbers in, logits in a mapping out; layers called by keyword and returning tuples."""

    def __init__(self, *, width: int = 8, depth: int = 2, heads: int = 2, classes: int = 4) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(11, width)
        self.encoder = Encoder(width, depth, heads)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.encoder(self.embeddings(x))["last_hidden_state"]
        return {"logits": self.classifier(hidden[:, 0])}


class TorchEncoder(nn.Module):
    """torch.nn.TransformerEncoderLayer, whose attention computes its projections where no hook sees them."""

    def __init__(self, *, width: int = 8, depth: int = 2, heads: int = 2, batch_first: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 16, batch_first=batch_first) for _ in range(depth)
        )
        self.head, self.batch_first = nn.Linear(width, 4), batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x if self.batch_first else x.transpose(0, 1)
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0] if self.batch_first else x[0])


def words(batch: int = 3, length: int = 6) -> Tensor:
    return torch.randint(0, 11, (batch, length), generator=torch.Generator().manual_seed(0))
