"""Variations of the training images, made on whole batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT_PX = 2
CROP_SHARE = 8  # a crop moves by up to a side divided by this: 4 of 32 pixels, as is usual on CIFAR


def augment(images: Tensor, kinds: Sequence[str], generator: torch.Generator) -> Tensor:
    """Vary each image by itself: (batch, channels, height, width) of pixels, where 0 is black.

    kinds: of "flip" (left-right, every other image), "crop" and "shift"; applied in the order given.
    The generator may live on the CPU while the images do not.
    """
    height, width = images.shape[-2:]
    for kind in kinds:
        if kind == "flip":
            images = _flip(images, generator)
        elif kind == "crop":
            images = _move(images, height // CROP_SHARE, width // CROP_SHARE, generator)
        else:
            assert kind == "shift", f"unknown augmentation {kind}"
            images = _move(images, SHIFT_PX, SHIFT_PX, generator)
    return images


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = _whole_numbers(2, len(images), generator).to(images.device).bool()
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def _move(images: Tensor, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to that many pixels either way, over black: a random crop of the padded image."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (columns, columns, rows, rows))
    top = _whole_numbers(2 * rows + 1, count, generator)
    left = _whole_numbers(2 * columns + 1, count, generator)
    y = top[:, None] + torch.arange(height)
    x = left[:, None] + torch.arange(width)
    places = y[:, :, None] * padded.shape[3] + x[:, None, :]
    flat = places.view(count, 1, height * width).to(images.device).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, flat).view_as(images)


def _whole_numbers(below: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(below, (count,), generator=generator, device=generator.device).cpu()
