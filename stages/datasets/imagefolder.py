"""`imagefolder:PATH`: a folder for each class, inside train, val and test or by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ..splits import InMemory, Pixels, Split, thin
from .decoding import Decoded, Files, decode_all, named
from .folders import Listing, list_splits
from .found import MEMORY_LIMIT_BYTES, Found, Request, digest_of
from .pictures import BrokenImageError, decode
from .resize import wanted_size
from .tensors import checked_classes, same_shape


def open_imagefolder(request: Request) -> Found:
    """List the files, decode them once, and say what was left out."""
    source, size = request.settings.source, wanted_size(request.settings.size)
    listings = {
        name: _thinned(listing, request.settings.limit, request.seed)
        for name, listing in _wanted(list_splits(Path(request.name).expanduser(), source=source), request.only).items()
    }
    keep_pixels = _bytes(listings, size) < MEMORY_LIMIT_BYTES
    decoded = {
        name: decode_all(
            listing.root,
            listing.names,
            size=size,
            keep_pixels=keep_pixels,
            cache=request.cache,
            progress=request.progress,
        )
        for name, listing in listings.items()
    }
    channels = max(part.pixels.shape[0] for part in decoded.values())
    splits = {name: _split(listings[name], decoded[name], channels) for name in listings}
    same_shape(splits, source=source)
    classes = checked_classes(splits, next(iter(listings.values())).classes, source=source)
    labels = digest_of([split.labels() for split in splits.values()])
    return Found(
        splits=splits,
        classes=classes,
        digest=" ".join([labels, *(f"{name} {part.digest}" for name, part in decoded.items())]),
        notes=tuple(_notes(listings, decoded, keep_pixels=keep_pixels)),
    )


def _wanted(listings: Mapping[str, Listing], only: tuple[str, ...] | None) -> Mapping[str, Listing]:
    """All splits, or the one that is wanted: the others' images are then never opened."""
    if only is None:
        return listings
    name = next(name for name in only if name in listings)
    return {name: listings[name]}


def _thinned(listing: Listing, limit: int | None, seed: int) -> Listing:
    chosen = thin(torch.tensor(listing.labels), limit, seed=seed).tolist()
    return replace(
        listing,
        names=tuple(listing.names[place] for place in chosen),
        labels=tuple(listing.labels[place] for place in chosen),
    )


def _bytes(listings: Mapping[str, Listing], size: tuple[int, int] | None) -> int:
    """Of all images once they are decoded, taken as coloured and as large as the first whole one."""
    files = [(listing.root / name) for listing in listings.values() for name in listing.names]
    if size is None:
        size = next((have for have in map(_size, files) if have), (1, 1))
    return len(files) * 3 * size[0] * size[1]


def _size(path: Path) -> tuple[int, int] | None:
    try:
        shape = decode(path, None).shape
    except BrokenImageError:
        return None
    return shape[1], shape[2]


def _split(listing: Listing, decoded: Decoded, channels: int) -> Split:
    labels = torch.tensor(listing.labels)[decoded.kept]
    return Split(_widened(decoded.pixels, channels), labels)


def _widened(pixels: Pixels, channels: int) -> Pixels:
    """Grey pixels as coloured ones, where another split is coloured."""
    if pixels.shape[0] == channels:
        return pixels
    if isinstance(pixels, InMemory):
        return InMemory(pixels.images.expand(-1, channels, -1, -1))
    assert isinstance(pixels, Files)
    return Files(pixels.paths, size=pixels.size, shape=(channels, *pixels.shape[1:]))


def _notes(listings: Mapping[str, Listing], decoded: Mapping[str, Decoded], *, keep_pixels: bool) -> list[str]:
    notes = []
    ignored = sum(listing.ignored for listing in listings.values())
    if ignored:
        notes.append(f"{ignored} files in the class folders do not end like images and were ignored")
    for name, part in decoded.items():
        if part.broken:
            notes.append(
                f"{len(part.broken)} of {len(listings[name].names)} {name} images cannot be read and were "
                f"skipped: {named(part.broken)}"
            )
    if not keep_pixels:
        notes.append("the images do not fit into memory and are decoded again in every epoch")
    return notes
