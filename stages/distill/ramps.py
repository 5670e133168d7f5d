"""How the weight of a loss changes over epochs. No torch here."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Ramp:
    """A factor that goes from `start` to `end` between two epochs and stays there.

    after: epochs before it begins to move. epochs: how long it moves; 0: it is `end` at once. kind: linear, cosine, or
    sigmoid, which is exp(-5 (1 - t)^2) (Laine & Aila, 2017, arXiv:1610.02242).
    """

    epochs: Annotated[float, Field(ge=0)] = 0.0
    after: Annotated[float, Field(ge=0)] = 0.0
    start: float = 0.0
    end: float = 1.0
    kind: Literal["linear", "cosine", "sigmoid"] = "linear"

    def at(self, epoch: float) -> float:
        """The factor when so many epochs are gone."""
        if epoch < self.after:
            return self.start
        share = min(1.0, (epoch - self.after) / self.epochs) if self.epochs else 1.0
        if self.kind == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        elif self.kind == "sigmoid":
            share = math.exp(-5 * (1 - share) ** 2)
        return self.start + (self.end - self.start) * share
