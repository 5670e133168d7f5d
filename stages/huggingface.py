"""Networks of Hugging Face's transformers: built from a configuration, with one input and one answer as others have it.

Nothing is fetched: a folder on disk holds the configuration and the weights, or the name of an architecture is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..targets.errors import RecipeError, did_you_mean
from .contract import Tokens
from .imports import import_for
from .tasks import Task
from .tensors import fill_

WEIGHTS = "model.safetensors"  # what a folder that `save_pretrained` wrote keeps them in
HEADS = {
    "text": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "classification": "AutoModelForImageClassification",
    "multilabel": "AutoModelForImageClassification",
    "regression": "AutoModelForImageClassification",
    "segmentation": "AutoModelForSemanticSegmentation",
}


class Texts(nn.Module):
    """Tokens in, logits out: the mask of the padding is made inside, so that the exported file has one input."""

    def __init__(self, network: nn.Module, *, pad: int) -> None:
        super().__init__()
        self.network, self.pad = network, pad

    def forward(self, tokens: Tensor) -> Tensor:
        there = (tokens != self.pad).long()
        return self.network(input_ids=tokens, attention_mask=there).logits  # type: ignore[no-any-return]


class Images(nn.Module):
    """Pixels in, logits out; answers for pixels have the size of the image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=pixels).logits
        if logits.ndim == 4 and logits.shape[2:] != pixels.shape[2:]:
            return F.interpolate(logits, size=pixels.shape[2:], mode="bilinear", align_corners=False)
        return logits


def from_transformers(
    name: str, arguments: dict[str, Any], *, classes: int, shape: tuple[int, ...], task: Task, tokens: Tokens | None
) -> nn.Module:
    """The network of a folder that `save_pretrained` wrote, with its weights, or an untrained one of a kind.

    name: the folder, or what transformers calls the kind: `bert`, `distilbert`, `vit`. arguments: values of the
    configuration. RecipeError: there is neither, or it does not fit.
    """
    transformers = import_for(f"transformers:{name}", "transformers")
    folder = Path(name).expanduser() if "/" in name else None
    config = _config(transformers, folder, name, _sizes(shape, tokens), {"num_labels": classes, **arguments})
    try:
        # attention written out in plain operations: every exporter knows them
        network = getattr(transformers, HEADS[task.name]).from_config(config, attn_implementation="eager")
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"transformers:{name} has no form for the task {task.name}: {_first_line(error)}") from error
    if folder is not None:
        _load_(network, folder)
    return Images(network) if tokens is None else Texts(network, pad=tokens.pad)


def _config(transformers: Any, folder: Path | None, name: str, sizes: dict[str, Any], arguments: dict[str, Any]) -> Any:
    """sizes: of the data; those of a trained network are as they were when it was trained."""
    if folder is None:
        known = list(transformers.CONFIG_MAPPING)
        if name not in known:
            raise RecipeError(
                f"transformers has no kind of network {name!r}{did_you_mean(name, known)}; for a trained one write the "
                f"path of its folder with a slash, transformers:./{name}"
            )
        return transformers.AutoConfig.for_model(name, **sizes, **arguments)
    if not (folder / "config.json").is_file():
        raise RecipeError(
            f"transformers:{name}: there is no config.json in such a folder here. Nothing is fetched: get the network "
            f"once with `hf download {name} --local-dir FOLDER`, and write transformers:./FOLDER"
        )
    return transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, **arguments)


def _sizes(shape: tuple[int, ...], tokens: Tokens | None) -> dict[str, Any]:
    if tokens is None:
        return {"image_size": shape[1], "num_channels": shape[0]}
    positions = tokens.length + tokens.pad + 1  # RoBERTa and its relatives count from behind the padding's number
    return {"vocab_size": tokens.vocabulary, "max_position_embeddings": positions, "pad_token_id": tokens.pad}


def _load_(network: nn.Module, folder: Path) -> None:
    """Weights as tensors, nothing else. What is new, such as a head for other classes, keeps its first values."""
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).is_file():
        raise RecipeError(f"transformers:{folder}: the folder has no {WEIGHTS}; write it with save_pretrained")
    found, own = load_file(str(folder / WEIGHTS)), network.state_dict()
    fitting = {key: value for key, value in found.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise RecipeError(
            f"transformers:{folder}: none of the {len(found)} tensors in {WEIGHTS} is one of the network's"
        )
    with torch.no_grad():
        fill_(network, fitting, strict=False)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
