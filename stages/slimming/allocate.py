"""Where to take channels away so that every limit holds at the least cost in importance.

Greedy, by price: the next step is the one that loses least importance for what it brings nearer to the limits, over all
groups and all widths at once, so that a width at which the runtime is no faster is stepped over. Then what turned out
to be needless is given back. The problem is a knapsack of groups (HALP, Shen et al., 2022, arXiv:2110.10811), and
latency comes from tables of measured times as in NetAdapt (Yang et al., 2018, arXiv:1804.03230), which takes its steps
in the same way but for one group at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .costs import Cost
from .cutting import Group

Floats = NDArray[np.float64]
NOTHING = 1e-9  # a share that is not worth a step


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A cost that is to come down to a share of what it was."""

    cost: Cost
    share: float


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much each channel of each group matters. scores: by group, one for each channel, not negative.

    harm: by group, what was measured when its least important channels went: (sum of their scores, harm) pairs that
    begin with (0, 0) and do not fall. Without them the scores are the harm.
    """

    scores: Mapping[str, Floats]
    harm: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def lost(self, group: str, width: int) -> float:
        """What it costs when so many channels stay, the best ones."""
        gone = float(self._sums[group][len(self.scores[group]) - width])
        if group not in self.harm:
            return gone
        sums, harms = zip(*self.harm[group], strict=True)
        beyond = max(1.0, gone / sums[-1]) if sums[-1] else 1.0
        return float(np.interp(gone, sums, harms)) * beyond

    def kept(self, widths: Mapping[str, int]) -> float:
        """The share of all importance that stays."""
        whole = sum(self.lost(name, 0) for name in self.scores)
        return 1.0 - sum(self.lost(name, width) for name, width in widths.items()) / whole if whole else 1.0

    def best(self, group: str, width: int) -> list[int]:
        """The channels that stay, in their order."""
        order = np.argsort(-self.scores[group], kind="stable")[:width]
        return sorted(int(channel) for channel in order)

    @cached_property
    def _sums(self) -> dict[str, Floats]:
        """What the scores of the least important channels add up to, by how many go."""
        return {name: np.concatenate([[0.0], np.cumsum(np.sort(one))]) for name, one in self.scores.items()}


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """meets: every limit holds, as far as the costs know. path: share of importance kept and of the first limit's cost,
    step by step: the front that was walked along."""

    widths: dict[str, int]
    meets: bool
    path: tuple[tuple[float, float], ...]


def allocate(groups: Mapping[str, Group], importance: Importance, limits: Sequence[Limit]) -> Allocation:
    """Widths that hold every limit; where none do, the narrowest that bring anything."""
    widths = {name: group.width for name, group in groups.items()}
    values = [limit.cost.value(widths) for limit in limits]
    path = [(1.0, values[0])] if limits else []
    while any(value > limit.share for value, limit in zip(values, limits, strict=True)):
        step = _cheapest(groups, importance, limits, widths, values)
        if step is None:
            return Allocation(widths=widths, meets=False, path=tuple(path))
        values = [value + limit.cost.change(widths, step) for value, limit in zip(values, limits, strict=True)]
        widths.update(step)
        path.append((importance.kept(widths), values[0]))
    _give_back_(groups, importance, limits, widths, values)
    if limits:
        path.append((importance.kept(widths), values[0]))
    return Allocation(widths=widths, meets=True, path=tuple(path))


def _cheapest(
    groups: Mapping[str, Group],
    importance: Importance,
    limits: Sequence[Limit],
    widths: Mapping[str, int],
    values: Sequence[float],
) -> dict[str, int] | None:
    """The step with the least importance for each part of the way to the limits; of equal ones the longest."""
    best: tuple[float, float, dict[str, int]] | None = None
    over = [(limit, value - limit.share) for limit, value in zip(limits, values, strict=True) if value > limit.share]
    for name, group in groups.items():
        if group.inside is not None and not widths[group.inside]:
            continue
        for width in (width for width in group.widths if width < widths[name]):
            step = _step(groups, name, width)
            gain = sum(min(-limit.cost.change(widths, step), excess) / excess for limit, excess in over)
            if gain <= NOTHING:
                continue
            loss = sum(importance.lost(one, then) - importance.lost(one, widths[one]) for one, then in step.items())
            found = (loss / gain, -gain, step)
            best = found if best is None or found[:2] < best[:2] else best
    return None if best is None else best[2]


def _step(groups: Mapping[str, Group], name: str, width: int) -> dict[str, int]:
    """One group at another width; when a block goes, nothing has to go from what lies in it."""
    inside = {one.name: one.width for one in groups.values() if groups[name].is_block and one.inside == name}
    return {**inside, name: width}


def _give_back_(
    groups: Mapping[str, Group],
    importance: Importance,
    limits: Sequence[Limit],
    widths: dict[str, int],
    values: list[float],
) -> None:
    """Widen what can be widened while the limits hold, the most important first."""
    while True:
        best: tuple[float, str, int, list[float]] | None = None
        for name, width in _wider(groups, widths):
            then = [
                value + limit.cost.change(widths, {name: width}) for value, limit in zip(values, limits, strict=True)
            ]
            if any(value > limit.share for value, limit in zip(then, limits, strict=True)):
                continue
            won = importance.lost(name, widths[name]) - importance.lost(name, width)
            if best is None or won > best[0]:
                best = (won, name, width, then)
        if best is None or best[0] <= 0:
            return
        _, name, width, values[:] = best
        widths[name] = width


def _wider(groups: Mapping[str, Group], widths: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for name, group in groups.items():
        yield from ((name, width) for width in (group.width, *group.widths) if width > widths[name])
