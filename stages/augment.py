"""Variations of the training images, made on whole batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT_PX = 2
CROP_SHARE = 8  # a crop moves by up to a side divided by this: 4 of 32 pixels, as is usual on CIFAR


def lots(index: Tensor, *, seed: int, turn: int) -> Tensor:
    """A lot for each image, (batch,): its place in the data decides, and not the batch that it comes in.

    So it is varied alike whichever process shows it, and whoever counts turns to N has N variations of each image.
    turn: the epoch, or the number of a variation.
    """
    return _mixed(_mixed(index.cpu().to(torch.int64) + seed * 1_000_003) + turn)


def augment(images: Tensor, kinds: Sequence[str], lots: Tensor) -> Tensor:
    """Vary each image by its lot: (batch, channels, height, width) of pixels, where 0 is black.

    kinds: of "flip" (left-right, every other image), "crop" and "shift"; applied in the order given.
    The lots live on the CPU, wherever the images do.
    """
    height, width = images.shape[-2:]
    for place, kind in enumerate(kinds):
        mine = _mixed(lots + place + 1)
        if kind == "flip":
            images = _flip(images, mine)
        elif kind == "crop":
            images = _move(images, height // CROP_SHARE, width // CROP_SHARE, mine)
        else:
            assert kind == "shift", f"unknown augmentation {kind}"
            images = _move(images, SHIFT_PX, SHIFT_PX, mine)
    return images


def _flip(images: Tensor, lots: Tensor) -> Tensor:
    chosen = whole_numbers(2, lots).to(images.device).bool()
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def _move(images: Tensor, rows: int, columns: int, lots: Tensor) -> Tensor:
    """Move each image by up to that many pixels either way, over black: a random crop of the padded image."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (columns, columns, rows, rows))
    top = whole_numbers(2 * rows + 1, lots)
    left = whole_numbers(2 * columns + 1, _mixed(lots))
    y = top[:, None] + torch.arange(height)
    x = left[:, None] + torch.arange(width)
    places = y[:, :, None] * padded.shape[3] + x[:, None, :]
    flat = places.view(count, 1, height * width).to(images.device).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, flat).view_as(images)


def whole_numbers(below: int | Tensor, lots: Tensor) -> Tensor:
    """A number from 0 to below `below` for each lot."""
    return ((lots >> 33) & 0x7FFFFFFF) % below  # the high bits, which are mixed best


def _mixed(lots: Tensor) -> Tensor:
    """Each number to another that looks unrelated: splitmix64 (Steele et al., 2014), in arithmetic that wraps."""
    x = lots + _signed(0x9E3779B97F4A7C15)
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _signed(0x94D049BB133111EB)
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _signed(number: int) -> int:
    return number - (1 << 64)  # the constants have their highest bit set, and torch has no such integers
