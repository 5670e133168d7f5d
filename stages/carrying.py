"""A bundle for a board that cannot be reached, and what its answers will be judged by; the latter stays at home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..targets.bundle import write_bundle
from ..targets.errors import RecipeError
from ..targets.profiles import Profile
from ..targets.remote.boards import BoardFacts
from ..targets.remote.work import ANSWERED_BY_TOOL, evenly
from .artifact import ExportedFile
from .on_boards import engines_on

BUNDLE = "bundle"
MOST_BYTES = 256 * 2**20  # of samples
EXPECTED = "expected.npz"  # beside the bundle and not in it: labels do not travel
LABELS, ANSWERS = "labels", "answers-"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Of the samples that a bundle holds. answers: torch's, by variant."""

    labels: NDArray[Any]
    answers: Mapping[str, NDArray[np.float32]]


def write(
    work: Path,
    files: Sequence[ExportedFile],
    profile: Profile,
    *,
    images: NDArray[Any],
    labels: NDArray[Any],
    answers: Mapping[str, NDArray[np.float32]],
    seed: int,
) -> str:
    """Write both into a folder; returns the bundle's name there. images, labels, answers: of the test samples."""
    rows = evenly(len(images), _most(profile, bytes_each=images[:1].nbytes))
    unknown = BoardFacts(python="3", home="/", boot_id="unknown")
    engines = engines_on(unknown, files, profile, samples=images[rows])
    write_bundle(work / BUNDLE, engines, profile=profile, samples=images[rows], seed=seed)
    told: dict[str, Any] = {f"{ANSWERS}{name}": found[rows] for name, found in answers.items()}
    np.savez(work / EXPECTED, allow_pickle=False, labels=labels[rows], **told)
    return BUNDLE


def _most(profile: Profile, *, bytes_each: int) -> int:
    """Samples: few where each takes a process of trtexec; else as many as a bundle can carry."""
    if profile.runtime == "tensorrt":
        return int(profile.trtexec.get("samples", ANSWERED_BY_TOOL))
    return max(ANSWERED_BY_TOOL, MOST_BYTES // bytes_each)


def read(work: Path) -> Expected:
    """RecipeError: it is not there."""
    try:
        with np.load(work / EXPECTED, allow_pickle=False) as found:
            answers = {name.removeprefix(ANSWERS): found[name] for name in found.files if name != LABELS}
            return Expected(labels=found[LABELS], answers=answers)
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"{work / EXPECTED}, which the answers are judged by, cannot be read ({error}): run the same "
            "`compress` command with the same --out again"
        ) from None
