"""Load a checkpoint into a network: tensors only, nothing in the file is executed."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..targets.errors import RecipeError
from .tensors import fill_

ENDINGS = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
# Where training scripts put the weights among other things, in order of preference.
INSIDE = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params",
    "ema_state_dict", "state_dict_ema", "model_ema", "ema",
)  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")  # DDP, torch.compile, Lightning, ...
NAMED = 5  # keys of each kind in an error


def load_weights_(module: nn.Module, path: Path | str) -> None:
    """Fill `module` with the weights of a file: .safetensors, or a .pt that holds tensors.

    RecipeError: the file is none of these, holds code, or belongs to another network. The module is then as
    it was.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise RecipeError(f"model.weights: there is no file {path} (looked from {Path.cwd()})")
    state = _unwrapped(_read(path), path)
    state = _without_wrapper(state, module.state_dict().keys())
    _refuse_mismatch(module.state_dict(), state, path)
    fill_(module, state, strict=False)  # only num_batches_tracked can differ after the check


def _read(path: Path) -> Any:
    if path.suffix not in ENDINGS:
        raise RecipeError(f"model.weights: {path} ends in none of {', '.join(ENDINGS)}")
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise RecipeError(f"model.weights: {path} is a Git LFS pointer, not the weights. Run `git lfs pull`.")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecipeError(f"model.weights: {path} is damaged or no safetensors file: {error}") from error


def _read_pickle(path: Path) -> Any:
    if _is_torchscript(path):
        raise RecipeError(
            f"model.weights: {path} is a TorchScript archive: a program, not weights. Take those out of it:\n"
            "    import torch\n"
            f'    scripted = torch.jit.load("{path.name}", map_location="cpu")\n'
            '    torch.save(scripted.state_dict(), "weights.pt")'
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RecipeError(_holds_code(path, str(error))) from error
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecipeError(
            f"model.weights: {path} is damaged or no checkpoint: {reason}. Copy it again, or save it again "
            "with torch.save(model.state_dict(), ...)."
        ) from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _holds_code(path: Path, reason: str) -> str:
    """torch names the first object that is no tensor; the rest of what it says is how to override it."""
    thing = re.search(r"GLOBAL ([\w.]+)", reason)
    what = f"an object of {thing[1]}" if thing else "something else"
    return (
        f"model.weights: {path} holds {what} beside tensors, and loading that would run code out of the "
        "file. Convert it once, where it was trained and you trust it:\n"
        "    import torch\n"
        f'    saved = torch.load("{path.name}", map_location="cpu", weights_only=False)\n'
        '    state = saved.state_dict() if hasattr(saved, "state_dict") else saved["state_dict"]\n'
        '    torch.save(state, "weights.pt")'
    )


def _unwrapped(value: Any, path: Path, *, depth: int = 0) -> dict[str, Tensor]:
    """The state dict, however deep a training script has put it."""
    if isinstance(value, Mapping):
        tensors = {str(key): item for key, item in value.items() if isinstance(item, Tensor)}
        inner = next((value[key] for key in INSIDE if isinstance(value.get(key), Mapping)), None)
        if inner is not None and depth < 3:
            return _unwrapped(inner, path, depth=depth + 1)
        if tensors:
            return tensors
    words = f"a value of type {type(value).__name__}"
    if isinstance(value, Mapping):
        words = f"the keys {', '.join(map(str, list(value)[:NAMED]))}" if value else "nothing"
    raise RecipeError(
        f"model.weights: {path} holds {words} and no weights that could be found. Save it with "
        "torch.save(model.state_dict(), ...)."
    )


def _without_wrapper(state: dict[str, Tensor], wanted: Any) -> dict[str, Tensor]:
    """Take off what a wrapper put before every name, where that brings more of the wanted names."""
    candidates = [state]
    if "n_averaged" in state:  # the counter of torch's AveragedModel, beside the names that it wraps
        candidates.append({key: value for key, value in state.items() if key != "n_averaged"})
    while True:
        last = candidates[-1]
        prefix = next((prefix for prefix in WRAPPERS if all(key.startswith(prefix) for key in last)), None)
        if prefix is None:
            break
        candidates.append({key.removeprefix(prefix): value for key, value in last.items()})
    return max(candidates, key=lambda names: len(names.keys() & set(wanted)))


def _refuse_mismatch(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted and not key.endswith("num_batches_tracked")]
    differing = [key for key in wanted if key in state and wanted[key].shape != state[key].shape]
    lines = [
        f"  {len(keys)} {what}: {', '.join(keys[:NAMED])}{', ...' if len(keys) > NAMED else ''}"
        for what, keys in (("missing in the file", missing), ("not in the network", unexpected))
        if keys
    ]
    if differing:
        shapes = [f"{key} {_shape(state[key])} in the file, {_shape(wanted[key])} here" for key in differing]
        lines.append(f"  {len(differing)} of another shape: {'; '.join(shapes[:NAMED])}")
    if lines:
        advice = _advice(wanted, state, differing) if differing else "Is it the checkpoint of this network?"
        raise RecipeError("\n".join([f"model.weights: {path} does not fit the network.", *lines, advice]))
    bad = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise RecipeError(
            f"model.weights: {path} holds values that are not finite, in {', '.join(bad[:NAMED])}: its "
            "training had failed. Take an earlier checkpoint."
        )


def _advice(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], differing: list[str]) -> str:
    last = differing[-1]
    file_rows, rows = (list(tensors[last].shape[:1]) for tensors in (state, wanted))
    if len(differing) <= 2 and file_rows != rows and state[last].shape[1:] == wanted[last].shape[1:]:
        return (
            f"The last layer has {file_rows[0]} classes in the file and {rows[0]} here: build the network "
            f"with as many (arguments: {{num_classes: {file_rows[0]}}}) and give the data of those classes, "
            "or train it for these."
        )
    return (
        "Build the network as it was trained: its function's arguments go under model.arguments, such as num_classes."
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
