"""Prune until what is measured meets the budget: propose by tables, measure the whole, correct, propose again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..prune import MOST_TRIALS
from .allocate import Allocation, Importance, Limit, allocate
from .bench import Seen
from .costs import Corrected, Widths
from .cutting import Group
from .goals import RESOURCES, Reach, Resource, reach

SLACK = 0.01  # below the limit, as a share of it: the final measurement is another one and differs by so much
TOO_FAR_BELOW = 0.04  # a trial that lies further below gives accuracy away, and the next one asks for less
FIRST_INTERVAL = 0.01  # half of it, as a share, before there is a trial that shows it
NARROW = 0.002  # of the unpruned cost: what is asked is not told apart more finely
LEAST_FACTOR, MOST_FACTOR = 0.2, 3.0  # of a correction: what lies outside is a disturbance


class Measure(Protocol):
    """Builds, exports and measures a candidate: its channels are the best of each group."""

    def __call__(self, widths: Widths, *, told: str) -> Seen: ...


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate that was measured end to end."""

    widths: dict[str, int]
    importance_kept: float
    predicted: float  # time as a share of the baseline's, or of whatever the first goal is about
    seen: Seen
    reached: tuple[Reach, ...]

    @property
    def is_met(self) -> bool:
        return all(one.is_met for one in self.reached)

    @property
    def furthest(self) -> float:
        """How far the worst goal is from its limit, as a share of the limit: above 0 it is missed."""
        return max(one.most / one.limit - 1 for one in self.reached)

    def facts(self) -> dict[str, Any]:
        return {"widths": self.widths, "importance_kept": self.importance_kept, "predicted": self.predicted,
                "seen": asdict(self.seen), "reached": [one.facts() for one in self.reached],
                "met": self.is_met}  # fmt: skip


@dataclass(kw_only=True)
class Journal:
    """Trials on disk: what was measured once is not measured again after Ctrl-C. identity: of all that decides them."""

    path: Path | None
    identity: str = ""
    entries: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.is_file():
            return
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(known, dict) and known.get("identity") == self.identity:
            self.entries = known["trials"]

    def find(self, widths: Widths) -> Seen | None:
        return next((Seen(**entry["seen"]) for entry in self.entries if entry["widths"] == dict(widths)), None)

    def keep(self, widths: Widths, seen: Seen) -> None:
        self.entries.append({"widths": dict(widths), "seen": asdict(seen)})
        if self.path is not None:
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps({"identity": self.identity, "trials": self.entries}, indent=1), encoding="utf-8")
            part.replace(self.path)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """chosen: the trial that meets every goal and keeps most importance; where none does, the nearest.

    exhausted: nothing is left to remove, or what is left brings nothing. front: share of importance kept and of the
    first goal's resource, as the corrected costs predict.
    """

    chosen: Trial
    trials: tuple[Trial, ...]
    exhausted: bool
    front: tuple[tuple[float, float], ...]


def search(
    groups: Mapping[str, Group],
    importance: Importance,
    costs: Mapping[Resource, Corrected],
    goals: Mapping[str, float],
    *,
    measure: Measure,
    whole: Seen,
    journal: Journal,
    most_trials: int = MOST_TRIALS,
    told: Callable[[str, float], None] = lambda text, share: None,
) -> Outcome:
    """Trials until one meets every goal and none by more than a few per cent, or nothing more can be tried.

    Each trial corrects the costs for the next; once one has met the goals and another has missed them, what is asked
    for stays between the two. costs: by resource, with what it takes unpruned as `start`. goals: limits by name. whole:
    the unpruned network.
    """
    now, asked = dict(costs), Asked()
    aims = {one.goal: one.limit * (1 - SLACK - FIRST_INTERVAL) for one in reach(goals, whole, whole)}
    trials: list[Trial] = []
    found = Allocation(widths={}, meets=False, path=())
    exhausted = False
    while len(trials) < most_trials:
        at, found, limits = _proposed(groups, importance, now, aims, asked, trials)
        exhausted = not found.meets
        if any(trial.widths == found.widths for trial in trials):
            break  # the costs have nothing new to say
        told(f"trial {len(trials) + 1}, {100 * importance.kept(found.widths):.0f} % of the importance kept",
             len(trials) / most_trials)  # fmt: skip
        seen = journal.find(found.widths)
        if seen is None:
            seen = measure(found.widths, told=f"trial {len(trials) + 1}")
            journal.keep(found.widths, seen)
        trial = Trial(
            widths=found.widths, importance_kept=importance.kept(found.widths),
            predicted=limits[0].cost.value(found.widths), seen=seen, reached=tuple(reach(goals, seen, whole)),
        )  # fmt: skip
        trials.append(trial)
        if trial.is_met and trial.furthest >= -TOO_FAR_BELOW:
            break
        asked = asked.after(at, is_met=trial.is_met)
        now, aims = _corrected(now, trial), _aims(trial)
    met = [trial for trial in trials if trial.is_met]
    chosen = max(met, key=lambda one: one.importance_kept) if met else min(trials, key=lambda one: one.furthest)
    return Outcome(chosen=chosen, trials=tuple(trials), exhausted=exhausted, front=found.path)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked of the costs as they are without corrections, by resource. met: the most that led to a network
    which meets the goals; missed: the least that led to one which does not."""

    met: Mapping[Resource, float] | None = None
    missed: Mapping[Resource, float] | None = None

    def middle(self) -> dict[Resource, float] | None:
        """Between the two; None: one of them is not known, or they are as good as equal."""
        if self.met is None or self.missed is None:
            return None
        if all(self.missed[one] - low < NARROW for one, low in self.met.items()):
            return None
        return {one: (low + self.missed[one]) / 2 for one, low in self.met.items()}

    def holds(self, at: Mapping[Resource, float]) -> bool:
        """Whether it lies between the two, as far as they are known."""
        above = self.met is None or all(value > self.met[one] for one, value in at.items())
        return above and (self.missed is None or all(value < self.missed[one] for one, value in at.items()))

    def after(self, at: Mapping[Resource, float], *, is_met: bool) -> Asked:
        """What is known once this was asked. Where it contradicts what was known, the newer counts."""
        if is_met:
            return Asked(met=at, missed=self.missed if replace(self, met=at).is_possible else None)
        return Asked(met=self.met if replace(self, missed=at).is_possible else None, missed=at)

    @property
    def is_possible(self) -> bool:
        return self.met is None or self.missed is None or all(low < self.missed[one] for one, low in self.met.items())


def _proposed(
    groups: Mapping[str, Group],
    importance: Importance,
    costs: Mapping[Resource, Corrected],
    aims: Mapping[str, float],
    asked: Asked,
    trials: Sequence[Trial],
) -> tuple[dict[Resource, float], Allocation, list[Limit]]:
    """What is asked, the widths for it, and the limits that led to them: other widths than those of the trials."""
    at: dict[Resource, float] = {}
    for goal, share in aims.items():
        raw = costs[RESOURCES[goal]].uncorrected(share)
        at[RESOURCES[goal]] = min(raw, at.get(RESOURCES[goal], raw))
    if not asked.holds(at):
        at = asked.middle() or at
    while True:
        limits = [Limit(cost=costs[one], share=costs[one].corrected(raw)) for one, raw in at.items()]
        found = allocate(groups, importance, limits)
        known = next((trial for trial in trials if trial.widths == found.widths), None)
        if known is None:
            return at, found, limits
        asked = asked.after(at, is_met=known.is_met)
        middle = asked.middle()
        if middle is None:
            return at, found, limits
        at = middle


def _corrected(costs: Mapping[Resource, Corrected], trial: Trial) -> dict[Resource, Corrected]:
    """Costs that would have said what was measured of this trial: their savings are stretched by the error."""
    fixed = dict(costs)
    for one in trial.reached:
        resource = RESOURCES[one.goal]
        cost = costs[resource]
        saved = 1 - cost.cost.value(trial.widths)
        if saved > 0:
            factor = (1 - one.share / cost.start) / saved
            fixed[resource] = Corrected(
                cost=cost.cost, start=cost.start, factor=min(MOST_FACTOR, max(LEAST_FACTOR, factor))
            )
    return fixed


def _aims(trial: Trial) -> dict[str, float]:
    """Where the next trial's shares should lie: its whole interval below the limit, and a little more."""
    return {one.goal: one.limit * (1 - SLACK) - (one.most - one.share) for one in trial.reached}


def front_facts(path: Sequence[tuple[float, float]], most: int = 50) -> list[list[float]]:
    """A front as a report can hold it: not every step of it."""
    step = max(1, math.ceil(len(path) / most))
    kept = [*path[::step], *(path[-1:] if path and (len(path) - 1) % step else ())]
    return [[round(importance, 5), round(share, 5)] for importance, share in kept]


def unmet_words(outcome: Outcome, refused: Mapping[str, str]) -> str:
    """Why a budget was not met by pruning, and what could be changed."""
    missed = [one for one in outcome.chosen.reached if not one.is_met]
    best = "; ".join(f"{one.goal} came to {one.value:.3g}" for one in missed)
    words = f"pruning cannot meet the budget: {best} at the most that can be removed"
    if not outcome.exhausted:
        words = f"no trial of {len(outcome.trials)} met the budget: {best} at the nearest"
    seen = front_facts(outcome.front, 4)
    if len(seen) > 1:
        first = next(iter(outcome.chosen.reached)).goal
        what = "of the time" if RESOURCES[first] == "time" else f"of the {RESOURCES[first]}"
        words += "; on the way " + ", ".join(f"{100 * share:.0f} % {what} kept {100 * kept:.0f} % of the importance"
                                             for kept, share in seen[1:])  # fmt: skip
    stays = [f"{name} ({why})" for name, why in list(refused.items())[:3] if "answers" not in why]
    tail = f", or make what cannot be pruned prunable: {'; '.join(stays)}" if stays else ""
    return f"{words}. Relax the limit, start from a smaller student (--student), or quantise too{tail}"
