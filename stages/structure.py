"""The shape of a network as plain data: how a pruned one is stored, and built again from its original.

A pruned network is the original with smaller tensors and smaller numbers in its modules. Storing those numbers and
resizing a fresh original needs neither pickle nor the pruning library, and does not depend on the order in which a
graph was walked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..targets.errors import StageError
from .distill.taps import HEADS
from .unpacking import Unpacked, unpack_

# What torch's and timm's modules call their widths. Only whole numbers and tuples of them are stored.
WIDTHS = (
    "in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_channels",
    "num_groups", "normalized_shape", "head_dim",
    "attn_dim", "embed_dim", "kdim", "vdim", "all_head_size", "inner_dim", *HEADS,
)  # fmt: skip


class Gone(nn.Identity):
    """Where a residual block was: what comes in goes out; masks and the like beside it are for nobody."""

    def forward(self, input: Tensor, *_others: Any, **_named: Any) -> Tensor:  # named as torch names it
        return input


def structure(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Each module's widths and the shapes of its own parameters and buffers, by module name, and which are gone."""
    return {
        name: {
            "widths": _widths(part),
            "shapes": {key: list(value.shape) for key, value in _own(part).items()},
            **({"gone": True} if isinstance(part, Gone) else {}),
            **({"unpacked": True} if isinstance(part, Unpacked) else {}),
        }
        for name, part in module.named_modules()
        if _widths(part) or _own(part) or isinstance(part, (Gone, Unpacked))
    }


def resize_(module: nn.Module, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Give a fresh original the widths and shapes of `wanted`; its weights are to be loaded afterwards.

    StageError: the networks do not have the same modules.
    """
    for name, facts in wanted.items():
        if facts.get("unpacked") and isinstance(dict(module.named_modules()).get(name), nn.MultiheadAttention):
            unpack_(module, name)
    parts = dict(module.named_modules())
    missing = [name for name in wanted if name not in parts]
    if missing:
        raise StageError(
            f"the stored structure has modules that this network lacks: {', '.join(missing[:5])}. "
            "The model's code has changed since; run again with --fresh."
        )
    for name, facts in wanted.items():
        part = parts[name]
        if facts.get("gone"):
            module.set_submodule(name, Gone())
            continue
        for width, value in facts["widths"].items():
            setattr(part, width, tuple(value) if isinstance(value, list) else value)
        for key, shape in facts["shapes"].items():
            _resize_tensor_(part, key, tuple(shape))


def _resize_tensor_(part: nn.Module, key: str, shape: tuple[int, ...]) -> None:
    old = _own(part)[key]
    if tuple(old.shape) == shape:
        return
    fresh = torch.zeros(shape, dtype=old.dtype)
    if key in part._parameters:
        part._parameters[key] = nn.Parameter(fresh, requires_grad=old.requires_grad)
    else:
        part._buffers[key] = fresh


def _own(part: nn.Module) -> dict[str, torch.Tensor]:
    own = {**part._parameters, **part._buffers}
    return {key: value for key, value in own.items() if value is not None}


def _widths(part: nn.Module) -> dict[str, Any]:
    # what is computed from the parts inside has a property, and follows them
    plain = (width for width in WIDTHS if not isinstance(getattr(type(part), width, None), property))
    found = {width: getattr(part, width, None) for width in plain}
    return {
        width: list(value) if isinstance(value, tuple) else value
        for width, value in found.items()
        if (isinstance(value, int) and not isinstance(value, bool)) or _whole_numbers(value)
    }


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, int) for item in value)
