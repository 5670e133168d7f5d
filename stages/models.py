"""Build the network that a recipe names, fill it with its weights, and see that it fits the data."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..targets.errors import RecipeError, did_you_mean
from .builtin import NETWORKS
from .contract import Tokens
from .imports import CODE, import_for, load_function
from .settings import ModelSettings
from .tasks import CLASSIFICATION, Task
from .weights import load_weights_

Shape = tuple[int, ...]


def build(
    settings: ModelSettings,
    *,
    classes: int,
    shape: Shape,
    seed: int = 0,
    task: Task = CLASSIFICATION,
    tokens: Tokens | None = None,
    any_classes: bool = False,
) -> nn.Module:
    """The network in eval mode on the CPU. shape: (channels, height, width) of one image, (length,) of a text.

    seed: of the initial weights; the global generator is left as it was. tokens: what texts are made of.
    any_classes: it may tell other classes apart, as a teacher may whose answers are not compared class by class.
    RecipeError: the network cannot be built, or does not answer as the task wants: (batch, classes) for most.
    """
    module = unchecked(settings, classes=classes, shape=shape, seed=seed, task=task, tokens=tokens)
    example = tokens.example(2) if tokens is not None else torch.zeros(2, *shape)
    wanted = task.answer_shape(2, classes=classes, shape=shape)
    _try(module, settings.source, example, wanted, any_classes=any_classes)
    return module


def unchecked(
    settings: ModelSettings,
    *,
    classes: int,
    shape: Shape,
    seed: int = 0,
    task: Task = CLASSIFICATION,
    tokens: Tokens | None = None,
) -> nn.Module:
    """The same without a trial: whatever it answers. RecipeError: it cannot be built, or its weights do not fit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _make(settings, classes, shape, task, tokens)
    module = module.cpu().eval()
    if settings.weights is not None:
        load_weights_(module, settings.weights)
    return module


def architecture_fingerprint(module: nn.Module) -> str:
    """Equal for networks of one structure: what they print, their shapes, their own classes' code."""
    printed = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(module))  # addresses of lambdas
    shapes = [(key, tuple(value.shape), str(value.dtype)) for key, value in module.state_dict().items()]
    digest = hashlib.sha256(f"{printed}\n{shapes}".encode())
    for code in sorted(_own_code(module)):
        digest.update(code)
    return digest.hexdigest()


def weights_fingerprint(module: nn.Module) -> str:
    """Equal for equal parameters and buffers."""
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _make(settings: ModelSettings, classes: int, shape: Shape, task: Task, tokens: Tokens | None) -> nn.Module:
    kind, colon, name = settings.source.partition(":")
    if colon and kind == "transformers":
        from .huggingface import from_transformers

        return from_transformers(name, settings.arguments, classes=classes, shape=shape, task=task, tokens=tokens)
    if colon and kind in MAKERS:
        return MAKERS[kind](name, settings, classes, shape)
    if ".py" in settings.source:
        return _from_file(settings)
    close = did_you_mean(kind, [*MAKERS, "transformers"]) if colon else ""
    raise RecipeError(
        f"model.source {settings.source!r} is of no known kind{close}. Write path/to/file.py:function, "
        "torchvision:NAME, timm:NAME, transformers:FOLDER or builtin:NAME."
    )


def _from_file(settings: ModelSettings) -> nn.Module:
    module = load_function(settings.source)(**settings.arguments)
    if isinstance(module, nn.Module):
        return module
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise RecipeError(f"{settings.source} returned the class {module.__name__}; return an instance of it")
    raise RecipeError(f"{settings.source} returned a value of type {type(module).__name__}; wanted a torch.nn.Module")


def _from_torchvision(name: str, settings: ModelSettings, classes: int, shape: Shape) -> nn.Module:
    models = import_for(settings.source, "torchvision").models
    known = models.list_models(module=models)
    if name not in known:
        raise RecipeError(f"torchvision has no classifier {name!r}{did_you_mean(name, known)}")
    arguments: dict[str, Any] = {"num_classes": classes, **settings.arguments}
    return _called(lambda: models.get_model(name, weights=None, **arguments), settings.source)


def _from_timm(name: str, settings: ModelSettings, classes: int, shape: Shape) -> nn.Module:
    timm = import_for(settings.source, "timm")
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise RecipeError(f"timm has no model {name!r}{did_you_mean(name, known)}")
    arguments: dict[str, Any] = {"num_classes": classes, "in_chans": shape[0], **settings.arguments}
    return _called(lambda: timm.create_model(name, pretrained=False, **arguments), settings.source)


def _from_builtin(name: str, settings: ModelSettings, classes: int, shape: Shape) -> nn.Module:
    if name not in NETWORKS:
        raise RecipeError(f"no built-in network {name!r}{did_you_mean(name, NETWORKS)}")
    arguments: dict[str, Any] = {"num_classes": classes, **settings.arguments}
    return _called(lambda: NETWORKS[name](**arguments), settings.source)


MAKERS: Mapping[str, Callable[[str, ModelSettings, int, Shape], nn.Module]] = {
    "torchvision": _from_torchvision,
    "timm": _from_timm,
    "builtin": _from_builtin,
}


def _called(make: Callable[[], Any], source: str) -> nn.Module:
    try:
        module = make()
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model.source {source} does not take model.arguments: {error}") from error
    assert isinstance(module, nn.Module)
    return module


def _try(module: nn.Module, source: str, batch: Tensor, wanted: tuple[int, ...], *, any_classes: bool) -> None:
    """One forward pass of two black images, or of two texts. wanted: shape of the answers."""
    if next(module.parameters(), None) is None:
        raise RecipeError(f"model.source {source} has no parameters: there is nothing to compress")
    size = "x".join(map(str, batch.shape))
    try:
        with torch.no_grad():
            answer = module(batch)
    except Exception as error:  # whatever a network raises at a shape that it was not made for
        raise RecipeError(
            f"model.source {source} fails on a batch of {size}: {type(error).__name__}: "
            f"{_first_line(error)}. {_input_hint(batch)}"
        ) from error
    if not isinstance(answer, Tensor) or not _answers(tuple(answer.shape), wanted, any_classes=any_classes):
        raise RecipeError(
            f"model.source {source} answers {_describe(answer)} to a batch of {size}; wanted logits of shape "
            f"{wanted}, one for each class of the data. {_hint(answer, wanted)}"
        )
    if not answer.isfinite().all():
        raise RecipeError(
            f"model.source {source} answers with values that are not finite to {_called_input(batch)}: look for a "
            "division by zero, or weights that overflowed in training."
        )


def _answers(shape: tuple[int, ...], wanted: tuple[int, ...], *, any_classes: bool) -> bool:
    if not any_classes or len(shape) != len(wanted):
        return shape == wanted
    axis = 2 if len(wanted) == 3 else 1  # tokens have their classes last
    return shape[:axis] + shape[axis + 1 :] == wanted[:axis] + wanted[axis + 1 :]


def _called_input(batch: Tensor) -> str:
    return "black images" if batch.is_floating_point() else "texts, one of them padded"


def _input_hint(batch: Tensor) -> str:
    if batch.is_floating_point():
        return (
            "Set data.size to what it was trained on, and see that its first layer takes as many channels as the "
            "images have."
        )
    return (
        f"It is given numbers of tokens up to {int(batch.max())}, {batch.shape[1]} for each text: see that its "
        "embedding and its positions have as many rows."
    )


def _describe(answer: Any) -> str:
    if isinstance(answer, Tensor):
        return f"a tensor of shape {tuple(answer.shape)}"
    return f"a value of type {type(answer).__name__}"


def _hint(answer: Any, wanted: tuple[int, ...]) -> str:
    if isinstance(answer, Tensor) and answer.ndim == len(wanted) == 2:
        return f"Set model.arguments, such as num_classes: {wanted[1]}, or give the data of the network's classes."
    if isinstance(answer, Tensor):
        return "See that the recipe's task is the network's: `task: segmentation` answers for each pixel."
    return "Return the logits alone, from a function of your own: path/to/file.py:function."


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".")


def _own_code(module: nn.Module) -> set[bytes]:
    """Code that defines the modules' classes, torch's own left out: equal prints can hide another forward()."""
    homes = {type(part).__module__ for part in module.modules()}
    own = [sys.modules[home] for home in homes if home.partition(".")[0] != "torch" and home in sys.modules]
    codes = {vars(home).get(CODE) or _code(home) for home in own}
    return {code for code in codes if code}


def _code(home: ModuleType) -> bytes | None:
    """Of a module's file; None where there is none, as at a prompt."""
    path = Path(getattr(home, "__file__", None) or "")
    return path.read_bytes() if path.is_file() else None
