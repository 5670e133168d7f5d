"""What a run without data of its own worked on, for the report: facts only, no images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .settings import Synthesis

if TYPE_CHECKING:
    from .score import Score


@dataclass(frozen=True, kw_only=True)
class Restart:
    """One attempt at making the images. score: `Score.total`; collapsed: what went wrong, in words."""

    seed: int
    score: float
    collapsed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Where the images of a run come from when they are not data of the task.

    source: as in `data.source`: generated, optimised, noise, images:FOLDER or cached:FOLDER.
    method: how they were made, such as fastdfkd. reason: why that one, in a sentence.
    teacher: the fingerprint of the network that they were made from. pool: the folder of a `Pool`.
    score: of the images in the pool. restarts: every attempt, in order; the best `score` was kept.
    evaluated_on: the source of real data that only judge; None: there were none, and what the teacher answers on
    images of the pool stands in for the truth. settings: of how images are made, before a student learns and while it
    does.
    """

    source: str
    method: str
    reason: str
    teacher: str
    pool: Path
    score: Score
    seconds: float
    restarts: tuple[Restart, ...] = ()
    evaluated_on: str | None = None
    settings: Synthesis = field(default_factory=Synthesis)

    @property
    def is_judged_on_real(self) -> bool:
        return self.evaluated_on is not None

    @property
    def images(self) -> str:
        """What these images are, in words that follow a number."""
        return "images of another kind" if self.source.startswith("images:") else "images that were made"
