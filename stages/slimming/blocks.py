"""Which parts of a network are residual blocks that can be left out whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORMALISED = 1e-3  # largest difference: what is normalised twice differs from what is normalised once by little

Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a module was given


def find_blocks(module: nn.Module, example: Tensor) -> list[str]:
    """Names of the smallest modules that hand their input on unchanged, or normalised, when all their weights are 0:
    then the input takes a way around them, and they can be left out (as whole layers are in Elkerdawy et al., 2020,
    arXiv:2011.14691, and in Sanh et al., 2019, arXiv:1910.01108)."""
    seen: dict[str, Call] = {}

    def hook(name: str) -> Callable[..., None]:
        def see(_part: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            alike = inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
            if alike and inputs[0].shape == output.shape and inputs[0].is_floating_point():
                seen[name] = (inputs[0].clone(), *inputs[1:]), named

        return see

    parts = {name: part for name, part in module.named_modules() if name and any(True for _ in part.children())}
    handles = [part.register_forward_hook(hook(name), with_kwargs=True) for name, part in parts.items()]
    with torch.no_grad():
        module.eval()(example)
    for handle in handles:
        handle.remove()
    found = [name for name, call in seen.items() if _has_way_around(parts[name], call)]
    return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]


def _has_way_around(part: nn.Module, call: Call) -> bool:
    """Whether nothing happens to what is given where no layer says anything, or nothing but what a norm does.

    The layers of BERT normalise what goes around them, and are given what the layer before has normalised.
    """
    (given, *others), named = call
    empty = copy.deepcopy(part).eval()
    if not list(empty.parameters()):
        return False
    with torch.no_grad():
        for weight in empty.parameters():
            weight.zero_()
        if torch.allclose(empty(given, *others, **named), given):
            return True
        norms = [norm for norm in empty.modules() if isinstance(norm, nn.LayerNorm) and norm.weight is not None]
        if not norms:
            return False
        for norm in norms:
            norm.weight.fill_(1.0)
        normalised = F.layer_norm(given, norms[-1].normalized_shape, eps=norms[-1].eps)
        return bool(torch.allclose(empty(given, *others, **named), normalised, atol=NORMALISED))
