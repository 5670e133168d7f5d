"""The data that need no download."""

from __future__ import annotations

from ...targets.errors import RecipeError, did_you_mean
from ..builtin import DIGITS_MEAN, DIGITS_STD, digits
from ..splits import thin
from .found import Found, Request, digest_of


def open_builtin(request: Request) -> Found:
    """`builtin:digits`. RecipeError: no data of that name are built in."""
    if request.name != "digits":
        raise RecipeError(f"no built-in data {request.name!r}{did_you_mean(request.name, ['digits'])}")
    whole = digits()
    splits = {
        name: split.subset(thin(split.labels(), request.settings.limit, seed=request.seed))
        for name, split in whole.items()
    }
    pixels = whole["train"].pixels
    return Found(
        splits=splits,
        classes=tuple(str(digit) for digit in range(10)),
        digest=digest_of([pixels.read(whole["train"].rows)]),
        notes=("handwritten digits that come with scikit-learn, divided 60/15/25 in the same way in every run",),
        mean=(DIGITS_MEAN,),
        std=(DIGITS_STD,),
    )
