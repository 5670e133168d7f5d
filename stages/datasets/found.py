"""What is asked of a source of images, and what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..contract import Tokens
from ..progress import Progress, Quiet
from ..settings import DataSettings
from ..splits import Split
from ..tasks import CLASSIFICATION, Task

MEMORY_LIMIT_BYTES = 2 * 2**30  # of decoded images: above it they are decoded again in every epoch


@dataclass(frozen=True, kw_only=True)
class Request:
    """name: what follows the colon in data.source. cache: a folder that the source may fill.

    task: what the recipe wants the data for; None: the data tell. only: one split is wanted, the first of these names
    that the source has; a source that can leave the others alone does. None: all are.
    """

    name: str
    settings: DataSettings
    seed: int
    cache: Path
    progress: Progress = field(default_factory=Quiet)
    task: str | None = None
    only: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """splits: those of "train", "val" and "test" that the source has. digest: of all pixels and labels.

    mean, std: what networks for this very set are usually trained with; empty: nothing is usual. tokens: of texts.
    """

    splits: Mapping[str, Split]
    classes: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    task: Task = CLASSIFICATION
    tokens: Tokens | None = None


def digest_of(tensors: Sequence[Tensor]) -> str:
    """SHA-256 over shapes, types and contents."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def class_names(classes: Sequence[object] | None, highest_label: int) -> tuple[str, ...]:
    """The names that the data give, or the numbers."""
    return tuple(str(name) for name in (classes if classes is not None else range(highest_label + 1)))
