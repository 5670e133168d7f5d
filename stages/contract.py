"""What a network takes and answers: the input's shape, how pixels or tokens become numbers, the classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..targets.errors import RecipeError

KEYS = ("input", "preprocessing", "classes")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How pixels become the numbers that a network takes: value / 255, minus the mean, divided by the std.

    size: (height, width) in pixels. mean, std: one for each channel, in units of 0 to 1.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    dtype: ClassVar[str] = "float32"

    def __post_init__(self) -> None:
        assert len(self.mean) == len(self.std) == self.channels, "one mean and one std for each channel"
        assert all(value > 0 for value in self.std), "a std divides"

    def normalize(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width), uint8 0 to 255 or floating point 0 to 1 -> float32."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        units = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        return (units - mean) / std

    def pixels(self, x: Tensor) -> Tensor:
        """What was normalised, from 0 to 1 again."""
        mean = torch.tensor(self.mean, device=x.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=x.device).view(1, -1, 1, 1)
        return (x * std + mean).clamp(0, 1)

    def example(self, count: int) -> Tensor:
        """Something of the right shape and type: images of the mean colour, normalised."""
        return torch.zeros(count, self.channels, *self.size)

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "size": self.size,
            "channels": self.channels,
            "scale": 1 / 255,
            "mean": self.mean,
            "std": self.std,
        }


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Texts as numbers of tokens, all of one length. The network finds by itself where the padding begins.

    pad: the number that fills up short texts. vocabulary: how many numbers there are; they start at 0.
    """

    length: int
    vocabulary: int
    pad: int = 0

    dtype: ClassVar[str] = "int64"

    def __post_init__(self) -> None:
        assert self.length > 0, "a text has a length"
        assert 0 <= self.pad < self.vocabulary, "the padding is a token as well"

    def normalize(self, texts: Tensor) -> Tensor:
        """(batch, length) of whole numbers -> int64; a token needs nothing else."""
        return texts.to(torch.int64)

    def example(self, count: int) -> Tensor:
        """Texts that use the vocabulary: the first is full, every later one is a token shorter and padded."""
        others = [token for token in range(min(self.vocabulary, self.length + 1)) if token != self.pad] or [self.pad]
        places = torch.arange(self.length)
        text = torch.tensor(others)[places % len(others)]
        lengths = (self.length - torch.arange(count)).clamp(min=1)
        return torch.where(places < lengths[:, None], text, self.pad)

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"length": self.length, "vocabulary": self.vocabulary, "pad": self.pad}


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """What an exported network promises to take and to answer.

    shape: (channels, height, width) of images, (length,) of texts. task: what the answers mean.
    """

    name: str = "input"
    shape: tuple[int, ...]
    dtype: str = "float32"
    dynamic_batch: bool
    preprocessing: Preprocessing | Tokens
    classes: tuple[str, ...]
    task: str = "classification"

    def as_metadata(self) -> dict[str, str]:
        """What is written into an exported file, so that it explains itself: JSON by key."""
        values = {
            "input": {
                "name": self.name,
                "shape": self.shape,
                "dtype": self.dtype,
                "dynamic_batch": self.dynamic_batch,
            },
            "preprocessing": self.preprocessing.facts(),
            "task": self.task,
            "classes": self.classes,
        }
        return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> InputContract:
        """The contract that `as_metadata` wrote. RecipeError: the file was not exported by this program."""
        missing = [key for key in KEYS if key not in metadata]
        if missing:
            raise RecipeError(
                f"the file's metadata lack {', '.join(missing)}: it was not exported by edgepress. "
                "Export it with `compress`, which writes what the network takes into the file."
            )
        try:
            entry, preprocessing, classes = (json.loads(metadata[key]) for key in KEYS)
            return cls(
                name=entry["name"],
                shape=tuple(map(int, entry["shape"])),
                dtype=entry["dtype"],
                dynamic_batch=entry["dynamic_batch"],
                preprocessing=_preprocessing(preprocessing),
                classes=tuple(classes),
                task=json.loads(metadata.get("task", '"classification"')),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(
                f"the file's metadata do not say what the network takes ({type(error).__name__}: {error}). "
                "They were changed after the export; export the file again."
            ) from error


def _preprocessing(facts: dict[str, Any]) -> Preprocessing | Tokens:
    if "vocabulary" in facts:
        return Tokens(length=int(facts["length"]), vocabulary=int(facts["vocabulary"]), pad=int(facts["pad"]))
    height, width = facts["size"]
    return Preprocessing(
        size=(height, width), channels=facts["channels"], mean=tuple(facts["mean"]), std=tuple(facts["std"])
    )
