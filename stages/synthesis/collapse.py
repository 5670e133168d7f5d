"""Notice that a generator has collapsed while a student learns from it: what it makes then teaches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .score import Score

BAD_LOOKS = 2  # one after the other: a single one may be a passing state of a game between two
SPENT = 0.02  # share of the images that student and teacher answer differently: below it they teach nothing new


class Watch:
    """Looks at what is made, once in an epoch. restarts: how often a generator had to begin anew."""

    def __init__(self) -> None:
        self.restarts, self._bad = 0, 0

    def spent(self, score: Score) -> str | None:
        """Why these images teach nothing, in words that follow "collapsed:". None: they do.

        Images of one class may still be where student and teacher differ: then they teach.
        """
        return score.collapsed if (score.disagreement or 0.0) < SPENT else None

    def must_begin_anew(self, reason: str | None) -> bool:
        """Whether it is time, after a look at which this was `spent`: the same in all processes."""
        self._bad = self._bad + 1 if reason else 0
        if self._bad < BAD_LOOKS:
            return False
        self.restarts, self._bad = self.restarts + 1, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"restarts": self.restarts, "bad": self._bad}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.restarts, self._bad = int(state["restarts"]), int(state["bad"])


def words(epoch: int, reason: str) -> str:
    """For the user. epoch: counted from 0."""
    return f"the generator of images collapsed and began anew in epoch {epoch + 1}: {reason}"
