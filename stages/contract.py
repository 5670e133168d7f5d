"""What a network takes and answers: the input's shape, how pixels become numbers, the classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        assert len(self.mean) == len(self.std) == self.channels, "one mean and one std for each channel"
        assert all(value > 0 for value in self.std), "a std divides"

    def normalize(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width), uint8 0 to 255 or floating point 0 to 1 -> float32."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        units = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        return (units - mean) / std


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """What an exported network promises to take and to answer. shape: (channels, height, width)."""

    name: str = "input"
    shape: tuple[int, int, int]
    dtype: str = "float32"
    dynamic_batch: bool
    preprocessing: Preprocessing
    classes: tuple[str, ...]

    def as_metadata(self) -> dict[str, str]:
        """What is written into an exported file, so that it explains itself: JSON by key."""
        pixels = self.preprocessing
        values = {
            "input": {
                "name": self.name,
                "shape": self.shape,
                "dtype": self.dtype,
                "dynamic_batch": self.dynamic_batch,
            },
            "preprocessing": {
                "size": pixels.size,
                "channels": pixels.channels,
                "scale": 1 / 255,
                "mean": pixels.mean,
                "std": pixels.std,
            },
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
            entry, pixels, classes = (json.loads(metadata[key]) for key in KEYS)
            height, width = pixels["size"]
            channels, rows, columns = entry["shape"]
            return cls(
                name=entry["name"],
                shape=(channels, rows, columns),
                dtype=entry["dtype"],
                dynamic_batch=entry["dynamic_batch"],
                preprocessing=Preprocessing(
                    size=(height, width),
                    channels=pixels["channels"],
                    mean=tuple(pixels["mean"]),
                    std=tuple(pixels["std"]),
                ),
                classes=tuple(classes),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(
                f"the file's metadata do not say what the network takes ({type(error).__name__}: {error}). "
                "They were changed after the export; export the file again."
            ) from error
