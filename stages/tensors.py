"""Save and load nested states (weights, optimisers, histories) without pickling anything.

One safetensors file: the tensors by number, and the nesting around them as JSON in the header, with a checksum. Equal
states make equal files.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

HEADER = "state"  # the one key of the header's metadata: safetensors writes several in any order


class CorruptStateError(Exception):
    """The file is not whole: written half, or changed since."""


def save_state(state: Any, path: Path) -> None:
    """Write dicts, lists, tuples, tensors and JSON scalars to `path`: all of it or nothing."""
    tensors: dict[str, Tensor] = {}
    nesting = json.dumps(_pack(state, tensors))
    header = {HEADER: json.dumps({"nesting": nesting, "sha256": _digest(tensors, nesting)})}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        save_file(tensors, str(part), metadata=header)
    except SafetensorError as error:
        if "os error 28" in str(error):  # safetensors (0.8) hides the errno
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part)) from error
        raise
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


def load_state(path: Path) -> Any:
    """What `save_state` wrote. CorruptStateError: the file does not match its checksum, or is no such file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptStateError(f"{path.name}: {error}") from None
    nesting = header.get("nesting", "")
    if header.get("sha256") != _digest(tensors, nesting):
        raise CorruptStateError(f"{path.name}: the checksum does not match")
    return _unpack(json.loads(nesting), tensors)


def fill_(module: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """`load_state_dict` for a state that lost the versions of its modules, as every file but a pickle does.

    Some modules look for theirs and refuse to load without: torchvision's MNASNet, for one. A state that still has
    them keeps them; else they are those of `module`, which is built by the same code.
    """
    versioned = OrderedDict(state)
    kept = getattr(state, "_metadata", None)
    versioned._metadata = module.state_dict()._metadata if kept is None else kept  # type: ignore[attr-defined]
    module.load_state_dict(versioned, strict=strict)


def _digest(tensors: Mapping[str, Tensor], nesting: str) -> str:
    digest = hashlib.sha256(nesting.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):  # pairs, not an object: an optimiser's state has whole numbers as keys
        return {"dict": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": [_pack(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a state holds a {type(value).__name__}, which has no form without pickle")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
