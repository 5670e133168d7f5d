"""Would a network's numbers fit into float16? Every intermediate result is looked at, on real samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LARGEST = 65_504.0  # of float16


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The largest absolute value that was seen, or a weight. layer: in whose forward it was computed."""

    layer: str
    value: float

    @property
    def fits(self) -> bool:
        return self.value <= LARGEST

    def words(self) -> str:
        return f"float16 ends at 65504, and {self.layer} reaches {self.value:.3g}"


def peak(module: nn.Module, batches: Sequence[Tensor]) -> Peak:
    """Of everything that a network in eval mode computes from these samples, in float32, and of its weights."""
    found = Peak(layer="the input", value=max(float(batch.abs().max()) for batch in batches))
    for name, weight in module.named_parameters():
        value = float(weight.detach().abs().max()) if weight.numel() else 0.0
        if value > found.value:
            found = Peak(layer=name, value=value)
    with torch.no_grad(), _where(module.eval()) as where, _Watch(where, found) as watch:
        for batch in batches:
            module(batch)
        largest: Peak = watch.found
    return largest


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the result of every operator, those between modules too."""

    def __init__(self, where: list[str], found: Peak) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.where, self.found = where, found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                largest = float(value.abs().max())
                # what is infinite on purpose is a mask, and stays infinite in float16
                if largest > self.found.value and largest != float("inf"):
                    self.found = Peak(layer=self.where[-1] if self.where else "the network itself", value=largest)
        return out


@contextmanager
def _where(module: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are computing now, the innermost last."""
    stack: list[str] = []
    handles = []
    for name, part in module.named_modules():
        if name:
            handles.append(part.register_forward_pre_hook(lambda _part, _given, name=name: stack.append(name)))
            handles.append(part.register_forward_hook(lambda _part, _given, _out: stack.pop() and None))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()
