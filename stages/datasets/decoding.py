"""Turn image files into pixels: all at once into memory and a cache where they fit, else batch by batch."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...targets.errors import RecipeError, StageError
from ..progress import Progress
from ..splits import InMemory, Pixels
from ..tensors import CorruptStateError, load_state, save_state
from .pictures import BrokenImageError, decode, stack

CHUNK = 256  # files for one thread at a time
MAX_BROKEN_SHARE = 0.01
NAMED = 5  # of what is wrong, so many are named
CACHE_FORMAT = 1  # part of the cache's key: goes up when the same files give other pixels


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """pixels: of the files at `kept`, in order. broken: the others, with their reasons. digest: of pixels."""

    pixels: Pixels
    kept: Tensor
    broken: tuple[str, ...]
    digest: str


class Files:
    """Images that are decoded each time they are asked for."""

    is_in_memory = False

    def __init__(self, paths: Sequence[Path], *, size: tuple[int, int] | None, shape: tuple[int, int, int]) -> None:
        """size: (height, width) to resize to; None: they have one size already."""
        self.paths, self.size, self.shape = tuple(paths), size, shape

    def read(self, rows: Tensor) -> Tensor:
        return stack([self._decode(self.paths[row]) for row in rows.tolist()], self.shape[0])

    def _decode(self, path: Path) -> NDArray[np.uint8]:
        try:
            return decode(path, self.size)
        except BrokenImageError as error:
            raise StageError(f"{path} could be read when the run began and cannot be any more: {error}") from error


def decode_all(
    root: Path,
    names: Sequence[str],
    *,
    size: tuple[int, int] | None,
    keep_pixels: bool,
    cache: Path,
    progress: Progress,
) -> Decoded:
    """Decode every file once, or take the result of an earlier time from the cache.

    names: of files, relative to root. keep_pixels: False: they would not fit into memory; the files are
    looked through all the same, so that a broken one is known before the training and not in the middle of
    it.
    RecipeError: too many are broken, or they differ in size while `size` is None.
    """
    path = cache / f"images-{_key(root, names, size=size, keep_pixels=keep_pixels)}.safetensors"
    state: Any
    try:
        state = load_state(path)
    except CorruptStateError:  # not there, or not whole
        state = _decode_files(root, names, size, keep_pixels, progress)
        save_state(state, path)
    kept: Tensor = state["kept"]
    channels, height, width = state["shape"]
    pixels: Pixels = (
        InMemory(state["images"])
        if keep_pixels
        else Files([root / names[row] for row in kept.tolist()], size=size, shape=(channels, height, width))
    )
    return Decoded(pixels=pixels, kept=kept, broken=tuple(state["broken"]), digest=state["digest"])


def _decode_files(
    root: Path, names: Sequence[str], size: tuple[int, int] | None, keep_pixels: bool, progress: Progress
) -> dict[str, Any]:
    """What the cache holds."""
    kept_images: deque[list[NDArray[np.uint8]]] = deque()
    kept: list[int] = []
    broken: list[str] = []
    digest = hashlib.sha256()
    first: tuple[str, tuple[int, int]] | None = None
    channels = 1  # one coloured picture makes all of them coloured
    # Closed at once when an error ends the loop: the threads would decode the rest before it is shown.
    with closing(_chunks(root, names, size)) as chunks:
        for rows, images, failures in chunks:
            for row, image in zip(rows, images, strict=True):
                have = (image.shape[1], image.shape[2])
                first = first or (names[row], have)
                if have != first[1]:
                    raise RecipeError(_two_sizes(root, first, (names[row], have)))
                channels = max(channels, image.shape[0])
                digest.update(f"{image.shape}".encode())
                digest.update(image.data)
            kept.extend(rows)
            broken.extend(failures)
            if keep_pixels:
                kept_images.append(images)
            done = len(kept) + len(broken)
            progress.update(done / len(names), f"decoding images {done}/{len(names)}")
    _refuse_broken(root, broken, total=len(names))
    assert first is not None, "fewer than one in a hundred is broken, so one is whole"
    return {
        "kept": torch.tensor(kept, dtype=torch.int64),
        "shape": [channels, *first[1]],
        "broken": broken,
        "digest": digest.hexdigest(),
        **({"images": _join(kept_images, (len(kept), channels, *first[1]))} if keep_pixels else {}),
    }


def _join(chunks: deque[list[NDArray[np.uint8]]], shape: tuple[int, ...]) -> Tensor:
    """One tensor of all chunks, each freed once it is copied: two copies of a large set would not fit."""
    images = torch.empty(shape, dtype=torch.uint8)
    start = 0
    while chunks:
        chunk = chunks.popleft()
        if chunk:
            images[start : start + len(chunk)] = stack(chunk, shape[1])
        start += len(chunk)
    return images


Chunk = tuple[list[int], list[NDArray[np.uint8]], list[str]]


def _chunks(root: Path, names: Sequence[str], size: tuple[int, int] | None) -> Generator[Chunk, None, None]:
    """(rows, images, what is wrong with the other rows) of each chunk, in order; decoded by threads."""

    def work(start: int) -> Chunk:
        rows, images, failures = [], [], []
        for row in range(start, min(start + CHUNK, len(names))):
            try:
                images.append(decode(root / names[row], size))
                rows.append(row)
            except BrokenImageError as error:
                failures.append(f"{names[row]} ({error})")
        return rows, images, failures

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(work, range(0, len(names), CHUNK))


def _refuse_broken(root: Path, broken: Sequence[str], *, total: int) -> None:
    if len(broken) < MAX_BROKEN_SHARE * total or not broken:
        return
    raise RecipeError(
        f"{root}: {len(broken)} of {total} images cannot be read, and fewer than "
        f"{MAX_BROKEN_SHARE:.0%} may be skipped. {named(broken)}. Replace or remove them."
    )


def named(things: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
    return "; ".join(things[:NAMED]) + more


def _two_sizes(root: Path, first: tuple[str, tuple[int, int]], other: tuple[str, tuple[int, int]]) -> str:
    words = " and ".join(f"{name} is {size[0]}x{size[1]}" for name, size in (first, other))
    return (
        f"{root}: the images differ in size: {words} (height x width). "
        f"Set data.size, for example data.size: [{first[1][0]}, {first[1][1]}]."
    )


def _key(root: Path, names: Sequence[str], *, size: tuple[int, int] | None, keep_pixels: bool) -> str:
    """Of the list of files, their sizes and times, and what was to be made of them."""
    digest = hashlib.sha256(json.dumps([CACHE_FORMAT, size, keep_pixels]).encode())
    for name in names:
        status = (root / name).stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
