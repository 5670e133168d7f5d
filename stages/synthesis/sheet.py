"""A contact sheet: a strip of small images for each class, from those that the teacher is surest of."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.resize import resize_batch

SIDE = 48  # pixels of a small image at most: the sheet lies in the report twice, as JSON and on the page
COLUMNS, ROWS = 8, 16
GAP = 2  # pixels between images, transparent


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Images of one class. png: None where there are none."""

    label: int
    png: bytes | None


def contact_sheet(
    images: Tensor, labels: Tensor, confidence: Tensor, *, classes: int, columns: int = COLUMNS, rows: int = ROWS
) -> list[Strip]:
    """A strip for each class; of more than `rows` those with most images and those with fewest, in the classes' order.

    images: uint8 or 0 to 1, (n, channels, height, width). In a strip the images stand in evenly spaced steps from the
    surest to the least sure. confidence: NaN where it is not known.
    """
    counts = labels.bincount(minlength=classes)
    shown = range(classes)
    if classes > rows:
        order = counts.argsort(descending=True, stable=True).tolist()
        shown = sorted({*order[: (rows + 1) // 2], *order[-(rows // 2) :]})  # type: ignore[assignment]
    return [Strip(label=label, png=_strip(images, labels == label, confidence, columns)) for label in shown]


def png(image: Tensor) -> bytes:
    """One image, (channels, height, width), uint8 or 0 to 1, with 1 or 3 channels, or the first of any other number."""
    from PIL import Image

    pixels = as_bytes(image)
    grey = pixels.shape[0] not in (3, 4)
    array = pixels[0].numpy() if grey else pixels.permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, format="PNG", optimize=True)
    return file.getvalue()


def write_pngs(images: Tensor, labels: Sequence[int], folder: Path, *, first: int = 0) -> int:
    """Every image as a file, in a folder for each class that the teacher saw; the number that comes after theirs.

    first: of the first image.
    """
    for number, (image, label) in enumerate(zip(images, labels, strict=True), start=first):
        path = folder / str(label) / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    return first + len(images)


def _strip(images: Tensor, mask: Tensor, confidence: Tensor, columns: int) -> bytes | None:
    places = mask.nonzero().flatten()
    if not len(places):
        return None
    order = confidence[places].nan_to_num(0.0).argsort(descending=True, stable=True)
    steps = torch.linspace(0, len(places) - 1, min(columns, len(places))).round().to(torch.int64)
    chosen = _small(images[places[order[steps]]])
    count, channels, height, width = chosen.shape
    strip = torch.zeros(4, height, count * (width + GAP) - GAP, dtype=torch.uint8)
    for place, image in enumerate(chosen):
        at = slice(place * (width + GAP), place * (width + GAP) + width)
        strip[:3, :, at] = image[:3] if channels == 3 else image[:1]
        strip[3, :, at] = 255
    return png(strip)


def _small(images: Tensor) -> Tensor:
    """Of at most SIDE pixels on the longer side."""
    height, width = images.shape[2:]
    longest = max(height, width)
    if longest <= SIDE:
        return as_bytes(images)
    size = (max(1, round(height * SIDE / longest)), max(1, round(width * SIDE / longest)))
    return as_bytes(resize_batch(as_bytes(images).float() / 255, size))


def as_bytes(images: Tensor) -> Tensor:
    """uint8, on the CPU, of that or of 0 to 1."""
    images = images.detach().cpu()
    return images if images.dtype == torch.uint8 else (images.clamp(0, 1) * 255).round().to(torch.uint8)
