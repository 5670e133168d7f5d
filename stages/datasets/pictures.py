"""Decode one image file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .resize import resize_picture

# What Pillow's decoders raise at bytes that they did not expect.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error, zlib.error)


class BrokenImageError(Exception):
    """A file that ends in .jpg and is none, or was cut off."""


def decode(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """(channels, height, width): 1 channel for grey pictures, else 3.

    A picture is taken as it is stored: torchvision's ImageFolder does not heed an EXIF rotation either.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            picture = _eight_bit(opened)
            picture = picture if size is None else resize_picture(picture, size)
            pixels = np.asarray(picture)
    except UnidentifiedImageError:
        raise BrokenImageError("it is no picture") from None
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise BrokenImageError(str(error) or type(error).__name__) from None
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def stack(images: Sequence[NDArray[np.uint8]], channels: int) -> Tensor:
    """(n, channels, height, width); grey pictures fill every channel."""
    wide = [np.broadcast_to(image, (channels, *image.shape[1:])) for image in images]
    return torch.from_numpy(np.stack(wide))


def _eight_bit(picture: Any) -> Any:
    """A picture of mode L or RGB."""
    from PIL import Image

    if picture.mode in {"L", "RGB"}:
        return picture
    if picture.mode == "1":
        return picture.convert("L")
    if picture.mode.startswith("I;16"):  # convert() would cut every value above 255 off
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in {"I", "F"}:
        raise ValueError(f"its pixels are of mode {picture.mode}, 32 bits; store it with 8 or 16")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # as Pillow asks, with a warning, for palettes that have transparency
    return picture.convert("RGB")
