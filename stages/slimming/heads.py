"""Heads of attentions: channels of queries, keys and values that go together, and numbers in the module to mend."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import nn

from ..distill.taps import HEADS

QUERIES = ("query", "q_proj", "q_lin", "to_q", "q")
KEYS = ("key", "k_proj", "k_lin", "to_k", "k")
VALUES = ("value", "v_proj", "v_lin", "to_v", "v")
JOINT = ("qkv",)
TOTALS = ("attn_dim", "all_head_size", "inner_dim")  # what modules call heads times the width of one


@dataclass(frozen=True, kw_only=True)
class Attention:
    """A module that divides channels among heads. makers: linear layers, each with how many times it makes all heads;
    reader: the layer behind them. counts: attributes that say how many heads, or channels of them, there are."""

    name: str
    heads: int
    head_width: int
    makers: tuple[tuple[str, int], ...]
    reader: str
    counts: tuple[tuple[str, int], ...]  # attribute, and its value for one head

    @property
    def kind(self) -> str:
        """Attentions of one kind cost alike."""
        facts = (self.heads, self.head_width, tuple(times for _, times in self.makers))
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]

    def places(self, times: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Places of a side that all heads make up so many times, and the head that each belongs to."""
        heads = [head for _ in range(times) for head in range(self.heads) for _ in range(self.head_width)]
        return tuple(range(len(heads))), tuple(heads)


def find_attentions(module: nn.Module) -> list[Attention]:
    """Modules that hold their number of heads and the linear layers that make them, where it is plain who reads them;
    others keep their heads."""
    found = []
    for name, part in module.named_modules():
        attribute = next((one for one in HEADS if isinstance(getattr(part, one, None), int)), None)
        if attribute is None:
            continue
        heads = int(getattr(part, attribute))
        linear = {child: layer for child, layer in part.named_children() if isinstance(layer, nn.Linear)}
        joint = next((child for child in JOINT if child in linear), None)
        apart = [next((one for one in names if one in linear), None) for names in (QUERIES, KEYS, VALUES)]
        makers = [(joint, 3)] if joint else [(one, 1) for one in apart if one is not None]
        whole = {linear[child].out_features // times for child, times in makers}
        if heads < 2 or len(whole) != 1 or (not joint and len(makers) != 3):
            continue
        width = whole.pop()
        readers = [
            f"{name}.{child}"
            for child, layer in linear.items()
            if child not in {one for one, _ in makers} and layer.in_features == width
        ] or _readers_beside(module, name, width)
        if width % heads or len(readers) != 1:
            continue
        counts = [(attribute, 1), *((one, width // heads) for one in TOTALS if getattr(part, one, None) == width)]
        found.append(
            Attention(
                name=name,
                heads=heads,
                head_width=width // heads,
                counts=tuple(counts),
                makers=tuple((f"{name}.{child}", times) for child, times in makers),
                reader=readers[0],
            )
        )
    return found


def _readers_beside(module: nn.Module, name: str, width: int) -> list[str]:
    """Linear layers around an attention that may read it, as BERT's `attention.output.dense` reads `attention.self`."""
    around, _, own = name.rpartition(".")
    return [
        f"{around}.{child}" if around else child
        for child, layer in module.get_submodule(around).named_modules()
        if isinstance(layer, nn.Linear) and layer.in_features == width and not child.startswith(f"{own}.")
    ]
