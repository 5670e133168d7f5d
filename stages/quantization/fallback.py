"""Give layers back to float until the budget of accuracy is met: those first that hurt most and save least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from .posttraining import with_floats
from .prepare import float_again
from .ranges import Estimator
from .scheme import Scheme
from .sensitivity import Ranking, Suspect
from .standing import Standing

SHOWN = 12  # suspects in the record: enough to see who was next


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """module, scheme: with the layers in float; as they were, where that did not help. standing: of that module."""

    module: nn.Module
    scheme: Scheme
    standing: Standing
    ranking: Ranking
    layers: tuple[Suspect, ...]

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "met": self.standing.meets,
            "sentence": self.sentence(),
            "float_layers": [suspect.facts() for suspect in self.layers],
            "ranking": [suspect.facts() for suspect in self.ranking.suspects[:SHOWN]],
            "untimed": self.ranking.untimed,
        }

    def sentence(self) -> str:
        by = "damage" if self.ranking.untimed else "damage for each millisecond"
        if not self.layers:
            return "no number of layers in float meets the budget of accuracy: all of them stay in INT8"
        count = len(self.ranking.suspects)
        return f"{len(self.layers)} of {count} layers went back to float, the first by {by}: {self.standing.words()}"


def fall_back(
    prepared: nn.Module,
    source: nn.Module,
    scheme: Scheme,
    batches: Sequence[Tensor],
    *,
    ranking: Ranking,
    estimator: Estimator,
    judge: Callable[[nn.Module], Standing],
) -> Fallback:
    """The fewest layers of the ranking, in its order, whose return to float meets the budget.

    prepared: what rounds now and misses it. source: the float network that it was made of, for its structure.
    """
    twin = float_again(prepared, source)
    suspects = ranking.suspects

    def attempt(count: int) -> Fallback:
        names = tuple(suspect.layer for suspect in suspects[:count])
        wider = replace(scheme, exclude=(*scheme.exclude, *names))
        module = with_floats(twin, wider, prepared, batches, estimator=estimator)
        return Fallback(module=module, scheme=wider, standing=judge(module), ranking=ranking, layers=suspects[:count])

    few, found = _gallop(attempt, most=len(suspects) - 1)
    if found is None:
        return Fallback(module=prepared, scheme=scheme, standing=judge(prepared), ranking=ranking, layers=())
    low, high = few, len(found.layers)  # `low` misses the budget and `high` meets it
    while high - low > 1:
        middle = attempt((low + high) // 2)
        if middle.standing.meets:
            found, high = middle, len(middle.layers)
        else:
            low = len(middle.layers)
    return found


def _gallop(attempt: Callable[[int], Fallback], *, most: int) -> tuple[int, Fallback | None]:
    """1, 2, 4, ... layers until the budget is met: the last number that misses it, and the first that meets it."""
    missed, count = 0, 1
    while count <= most:
        found = attempt(count)
        if found.standing.meets:
            return missed, found
        missed, count = count, (most if count < most < 2 * count else 2 * count)
    return missed, None
