"""What a recipe may say about the losses of a training. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from .ramps import Ramp

STRICT = ConfigDict(extra="forbid")
SHARED = ("weight", "ramp", "taps")  # keys of every loss; the rest are the method's own


def _ramp(seen: Any) -> Any:
    return {"epochs": seen} if isinstance(seen, (int, float)) else seen


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loss:
    """One term of an objective.

    weight: a factor. ramp: how it changes over epochs; a number N is a linear ramp of N epochs from 0. taps: where
    features come from, a place such as `@stages` or pairs [student tap, teacher tap]; none: the method's usual place.
    options: the method's own, as `compress losses NAME` lists them.
    """

    weight: float = 1.0
    ramp: Annotated[Ramp, BeforeValidator(_ramp)] = Field(default_factory=Ramp)
    taps: str | tuple[tuple[str, str], ...] | None = None
    options: Mapping[str, Any] = Field(default_factory=dict)


def loss(seen: Any) -> Any:
    """A loss as YAML writes it: `1000`, or `{weight: 1, beta: 8, ramp: 20}`."""
    if isinstance(seen, (int, float)) and not isinstance(seen, bool):
        return {"weight": seen}
    if isinstance(seen, Mapping) and "options" not in seen:
        shared = {key: value for key, value in seen.items() if key in SHARED}
        return {**shared, "options": {key: value for key, value in seen.items() if key not in SHARED}}
    return seen


def _fraction(seen: Any) -> Any:
    """`8/255`, as pixel sizes are usually written."""
    above, slash, below = seen.partition("/") if isinstance(seen, str) else (seen, "", "")
    if not slash:
        return seen
    try:
        return float(above) / float(below)
    except (ValueError, ZeroDivisionError):
        return seen


Pixels = Annotated[float, BeforeValidator(_fraction), Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Attack:
    """Train on images that were changed to mislead the student (projected gradient ascent, PGD).

    Madry et al., 2018 (arXiv:1706.06083). epsilon: how far a pixel may move, from 0 to 1; `8/255` is understood.
    step_size: of each of the `steps`. objective: what is driven up, the divergence from the teacher's answer to the
    unchanged image (kl) or the loss with the label (ce).
    """

    epsilon: Pixels = 8 / 255
    step_size: Pixels = 2 / 255
    steps: Annotated[int, Field(ge=1, le=1000)] = 10
    objective: Literal["kl", "ce"] = "kl"


Losses = Mapping[str, Annotated[Loss, BeforeValidator(loss)]]


def ce_and_kd(*, ce: float, kd: float, temperature: float) -> dict[str, Loss]:
    """The short form: the labels' loss and the teacher's, by weight."""
    return {
        "ce": Loss(weight=ce),
        "kd": Loss(weight=kd, options={"temperature": temperature}),
    }
