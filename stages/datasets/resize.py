"""Give an image the size that the network takes: shorter side to fit, bilinear, then the middle of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 1024  # images resized at once: floats of a whole data set would not fit


def wanted_size(size: tuple[int, int] | int | None) -> tuple[int, int] | None:
    """(height, width): one number in a recipe means a square."""
    return (size, size) if isinstance(size, int) else size


def covering(have: tuple[int, int], want: tuple[int, int]) -> tuple[int, int]:
    """The smallest (height, width) of the same shape as `have` that covers `want`."""
    scale = max(want[0] / have[0], want[1] / have[1])
    return max(want[0], round(have[0] * scale)), max(want[1], round(have[1] * scale))


def resize_picture(picture: Image, size: tuple[int, int]) -> Image:
    """A picture of exactly that (height, width); one that has it already is returned as it is."""
    from PIL.Image import Resampling

    have = (picture.height, picture.width)
    if have == size:
        return picture
    height, width = covering(have, size)
    scaled = picture.resize((width, height), Resampling.BILINEAR)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return scaled.crop((left, top, left + size[1], top + size[0]))


def resize_batch(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The same for (n, channels, height, width), uint8 or floating point."""
    have = (images.shape[2], images.shape[3])
    if have == size:
        return images
    height, width = covering(have, size)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    parts = [
        F.interpolate(part, size=(height, width), mode="bilinear", antialias=True)[
            :, :, top : top + size[0], left : left + size[1]
        ]
        for part in torch.split(images, CHUNK)
    ]
    return torch.cat(parts).contiguous()
