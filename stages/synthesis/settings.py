"""What a recipe may say about images that are made from a network. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")
Name = Literal[
    "auto", "dafl", "dfad", "zskt", "dfq", "deepinversion", "cmi", "fastdfkd", "nayer", "gdfq", "zeroq", "noise"
]  # fmt: skip
Kind = Literal["generated", "optimised", "noise", "images", "cached"]
KINDS: tuple[Kind, ...] = ("generated", "optimised", "noise", "images", "cached")
TAKES: dict[Kind, tuple[Name, ...]] = {  # methods, of kinds that do not take any
    "optimised": ("auto", "zeroq", "deepinversion"),
    "noise": ("auto", "noise"),
    "images": ("auto",),
}
NAMED: tuple[Kind, ...] = ("images", "cached")  # what follows their colon is a folder


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Synthesis:
    """How images are made from the teacher where there are no data.

    method: auto takes the one with the best accuracy for its time that this teacher allows. images: of the pool that is
    made before the first stage; it judges epochs and calibrates, and students learn from it. pool_mb: megabytes on disk
    that images may take; the oldest go. width: channels of the generator's last layers; none: chosen so that it costs
    about as much as the teacher. latent: random numbers that an image is made from. batch: images that are made at a
    time. rounds: of a training's epoch. steps: of the generator for each batch. restarts: so many random starts are
    tried, and the one whose images look best to the teacher is kept; labels and test images have no part in it. reuse:
    a student sees the same images for all its steps of a round. Where one of these is none, it is the method's own.
    """

    method: Name = "auto"
    images: Annotated[int, Field(ge=16)] | None = None
    pool_mb: Annotated[int, Field(ge=1)] = 1024
    width: Annotated[int, Field(ge=1, le=1024)] | None = None
    latent: Annotated[int, Field(ge=1, le=4096)] | None = None
    batch: Annotated[int, Field(ge=2)] | None = None
    rounds: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    restarts: Annotated[int, Field(ge=1, le=16)] = 2
    reuse: bool | None = None


def kind_of(source: str) -> tuple[Kind, str] | None:
    """Which kind of images made or taken for want of data a `data.source` names, and the folder behind its colon.

    None: real data of the task.
    """
    word, _, rest = source.partition(":")
    for kind in KINDS:
        if word == kind and bool(rest) == (kind in NAMED):
            return kind, rest
    return None
