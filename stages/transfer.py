"""Images to imitate a teacher on that need no labels and need not be those of the task: any, of the right size.

Hinton et al., 2015 (arXiv:1503.02531), section 2, call them the transfer set; that images of another kind do as well is
Kulkarni et al., 2017 (arXiv:1703.07131).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..targets.errors import RecipeError
from .data import Data, opener_of
from .datasets.decoding import decode_all
from .datasets.folders import list_images
from .datasets.found import MEMORY_LIMIT_BYTES, Request
from .progress import Progress, Quiet
from .settings import DataSettings
from .splits import Pixels, Split

LUMA = (0.299, 0.587, 0.114)  # what pictures are made grey with (ITU-R BT.601)


class Recoloured:
    """Images with another number of channels: grey ones repeated, coloured ones as their brightness."""

    def __init__(self, pixels: Pixels, channels: int) -> None:
        self._pixels = pixels
        self.shape = (channels, *pixels.shape[1:])
        self.is_in_memory = pixels.is_in_memory

    def read(self, rows: Tensor) -> Tensor:
        images = self._pixels.read(rows)
        if self.shape[0] != 1:
            return images.expand(-1, self.shape[0], -1, -1)
        weights = torch.tensor(LUMA).view(1, 3, 1, 1)
        return (images.float() * weights).sum(dim=1, keepdim=True).to(images.dtype)


def open_transfer(
    source: str, data: Data, *, seed: int, cache: Path, progress: Progress | None = None
) -> tuple[Split, str]:
    """The images that a source has to train on, in the size and colours of the data's, and a digest of them.

    source: as in `data.source`; of imagefolder:PATH every picture at any depth. Labels are not looked at. Where the
    data have something else for teachers, the source must have it too.
    RecipeError: they cannot be read, or cannot be given the shape of the data's images.
    """
    if len(data.shape) != 3:
        raise RecipeError(f"distill.data {source}: it is for images, and the network takes texts")
    theirs: Pixels | None = None
    channels, *size = data.shape
    opener, name = opener_of(source)
    settings = DataSettings(source=source, size=(size[0], size[1]))
    request = Request(name=name, settings=settings, seed=seed, cache=cache, progress=progress or Quiet())
    if source.startswith("imagefolder:"):
        pixels, count, digest = _pictures(request, size=(size[0], size[1]))
    else:
        found = opener(request)
        split = found.splits.get("train") or next(iter(found.splits.values()))
        pixels, theirs, count, digest = split.pixels, split.teacher_pixels, len(split), found.digest
    pixels = _in_colours(pixels, channels, said=f"distill.data {source}")
    labels = torch.zeros(count, dtype=torch.int64)
    return Split(pixels, labels, teacher_pixels=_for_teachers(theirs, data, source=source), is_labelled=False), digest


def pictures_of(
    folder: Path, *, shape: tuple[int, int, int], seed: int, cache: Path, progress: Progress | None = None
) -> tuple[Split, str]:
    """Every picture at any depth of a folder, without labels, in that shape, and a digest of them.

    RecipeError: there are none, or they cannot be read.
    """
    channels, height, width = shape
    settings = DataSettings(source=f"images:{folder}", size=(height, width))
    request = Request(name=str(folder), settings=settings, seed=seed, cache=cache, progress=progress or Quiet())
    pixels, count, digest = _pictures(request, size=(height, width))
    pixels = _in_colours(pixels, channels, said=f"data.source {settings.source}")
    return Split(pixels, torch.zeros(count, dtype=torch.int64), is_labelled=False), digest


def _in_colours(pixels: Pixels, channels: int, *, said: str) -> Pixels:
    """The same with so many channels. RecipeError: grey and colours can be turned into each other, and no others."""
    if pixels.shape[0] not in (1, 3, channels) or channels not in (1, 3, pixels.shape[0]):
        raise RecipeError(f"{said}: its images have {pixels.shape[0]} channels and the network takes {channels}")
    return pixels if pixels.shape[0] == channels else Recoloured(pixels, channels)


def _for_teachers(theirs: Pixels | None, data: Data, *, source: str) -> Pixels | None:
    """What teachers are shown in place of the images, where the data have such a thing. RecipeError: it is missing."""
    wanted = data.test.teacher_pixels
    if wanted is None:
        return None
    if theirs is None:
        raise RecipeError(f"distill.data {source}: it has no third part for teachers, as the data's own images have")
    if theirs.shape != wanted.shape:
        raise RecipeError(
            f"distill.data {source}: what it has for teachers is {theirs.shape}, and in the data {wanted.shape}"
        )
    return theirs


def _pictures(request: Request, *, size: tuple[int, int]) -> tuple[Pixels, int, str]:
    """Every picture under a folder, whatever the folders in it are called."""
    root = Path(request.name).expanduser()
    names = list_images(root, source=request.settings.source)
    decoded = decode_all(
        root,
        names,
        size=size,
        keep_pixels=len(names) * 3 * size[0] * size[1] < MEMORY_LIMIT_BYTES,
        cache=request.cache,
        progress=request.progress,
    )
    return decoded.pixels, len(decoded.kept), decoded.digest
