"""Which parts of a network are residual blocks that can be left out whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def find_blocks(module: nn.Module, example: Tensor) -> list[str]:
    """Names of the smallest modules that hand their input on unchanged when all their weights are 0: then the input
    takes a way around them, and they can be left out (as whole layers are in Elkerdawy et al., 2020, arXiv:2011.14691).
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Callable[..., None]:
        def see(_part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            alike = len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
            if alike and inputs[0].shape == output.shape:
                seen[name] = inputs[0].clone(), output

        return see

    parts = {name: part for name, part in module.named_modules() if name and any(True for _ in part.children())}
    handles = [part.register_forward_hook(hook(name)) for name, part in parts.items()]
    with torch.no_grad():
        module.eval()(example)
    for handle in handles:
        handle.remove()
    found = [name for name, (given, _) in seen.items() if _has_way_around(parts[name], given)]
    return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]


def _has_way_around(part: nn.Module, given: Tensor) -> bool:
    empty = copy.deepcopy(part).eval()
    weights = list(empty.parameters())
    if not weights:
        return False
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
        return bool(torch.allclose(empty(given), given))
