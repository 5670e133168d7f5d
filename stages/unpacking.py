"""torch.nn.MultiheadAttention with its projections as layers of their own, so that heads can go and layers be seen.

torch's keeps queries, keys and values in one parameter, and its formula needs as many channels of heads as of samples.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AGREES = 1e-4  # largest difference of the answers, as a share of the largest: the order of additions differs


class Unpacked(nn.Module):
    """Called as torch.nn.MultiheadAttention is, and answers as it does. Heads may be fewer than channels ask for."""

    in_proj_bias = None  # what torch's encoder layers look at before they take their own way around this module
    _qkv_same_embed_dim = False

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.batch_first = packed.num_heads, packed.dropout, packed.batch_first
        weights = _weights_of(packed)
        biases = [None] * 3 if packed.in_proj_bias is None else packed.in_proj_bias.detach().chunk(3)
        self.query, self.key, self.value = (_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))
        self.out_proj = _linear(packed.out_proj.weight.detach(), packed.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,  # a hint beside attn_mask, which says the same
    ) -> tuple[Tensor, Tensor | None]:
        if not self.batch_first:  # without a batch nothing changes places
            query, key, value = (one.transpose(0, -2) for one in (query, key, value))
        asked, known, told = (
            layer(one).unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)
            for layer, one in ((self.query, query), (self.key, key), (self.value, value))
        )
        scores = asked @ known.transpose(-1, -2) / asked.shape[-1] ** 0.5
        if attn_mask is not None:
            scores = scores + _added(attn_mask, scores)
        if key_padding_mask is not None:
            scores = scores + _added(key_padding_mask, scores).unsqueeze(-2).unsqueeze(-2)
        weights = F.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        answer = self.out_proj((weights @ told).transpose(-2, -3).flatten(-2))
        if not self.batch_first:
            answer = answer.transpose(0, -2)
        if not need_weights:
            return answer, None
        return answer, weights.mean(dim=-3) if average_attn_weights else weights


def unpack_(module: nn.Module, name: str) -> None:
    """Put one attention in the place of another."""
    packed = module.get_submodule(name)
    assert isinstance(packed, nn.MultiheadAttention)
    module.set_submodule(name, Unpacked(packed).train(packed.training))


def unpacked(module: nn.Module, example: Tensor) -> nn.Module:
    """A copy with every attention of torch's unpacked; the module itself where there is none, or where the copy does
    not answer alike, as where an attention is given a mask for each head."""
    names = [name for name, part in module.named_modules() if name and _can_be(part)]
    if not names:
        return module
    found = copy.deepcopy(module)
    for name in names:
        unpack_(found, name)
    with torch.no_grad():
        wanted = module.eval()(example)
        try:
            got = found.eval()(example)
        except (RuntimeError, TypeError, AttributeError, ValueError):
            return module
    alike = got.shape == wanted.shape and bool((got - wanted).abs().max() <= AGREES * wanted.abs().max() + 1e-6)
    return found if alike else module


def packed_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a network with unpacked attentions, named as in one with torch's own."""
    state = module.state_dict()
    for name, part in module.named_modules():
        if not isinstance(part, Unpacked):
            continue
        makers = [f"{name}.{child}" for child in ("query", "key", "value")]
        weights = [state.pop(f"{maker}.weight") for maker in makers]
        biases = [state.pop(f"{maker}.bias") for maker in makers if f"{maker}.bias" in state]
        if biases:
            state[f"{name}.in_proj_bias"] = torch.cat(biases)
        if len({weight.shape[1] for weight in weights}) == 1:
            state[f"{name}.in_proj_weight"] = torch.cat(weights)
        else:
            state |= {f"{name}.{one}_proj_weight": weight for one, weight in zip("qkv", weights, strict=True)}
    return state


def _can_be(part: nn.Module) -> bool:
    plain = type(part) is nn.MultiheadAttention  # a subclass may compute something else
    return plain and part.bias_k is None and part.bias_v is None and not part.add_zero_attn


def _weights_of(packed: nn.MultiheadAttention) -> list[Tensor]:
    if packed.in_proj_weight is not None:
        return list(packed.in_proj_weight.detach().chunk(3))
    return [one.detach() for one in (packed.q_proj_weight, packed.k_proj_weight, packed.v_proj_weight)]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _added(mask: Tensor, scores: Tensor) -> Tensor:
    """A mask as what is added to scores: True means that nobody looks there."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, float("-inf"))
