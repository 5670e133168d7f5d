"""Prune a network to a budget, at once or in steps, and tell how it went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...targets.errors import StageError
from ..artifact import Artifact, Context
from ..crew import crew as meet
from ..evaluation import quality
from ..prune import ACCURACY, BISECTIONS, Prune
from ..unpacking import unpacked
from .allocate import Importance, Limit, allocate
from .bench import Seen
from .costs import Corrected
from .cutting import Groups, Kept, slim
from .forms import FLOAT
from .goals import RESOURCES, Resource, reach
from .importance import Loss
from .search import Outcome, front_facts, unmet_words
from .setup import WIDE, Setup, costs_of, given, groups_of, kept_channels, prepare, run, score

DRIFT = 0.1  # of the baseline's time between the first and the last trial, as a share

Recover = Callable[[nn.Module, int, str], None]  # trains a network for so many epochs, in a folder of that name


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """module: the pruned network, not recovered yet; None where nothing had to be removed, and `skip` says why."""

    module: nn.Module | None
    facts: dict[str, Any]
    skip: str | None = None


def shape(
    settings: Prune, artifact: Artifact, context: Context, goals: Mapping[str, float], loss: Loss, recover: Recover
) -> Shaped:
    """The network whose measured cost meets the goals. StageError: no channel can be removed at all.

    recover: trains a network in place for so many epochs, in a folder of its own. Under `torchrun` the main process
    measures and tells the others what it found.
    """
    crew = meet()
    example = artifact.contract.preprocessing.example(1)
    module = unpacked(artifact.module, example)
    setup = crew.in_main(lambda: prepare(settings, module, example, context, goals, baseline=artifact.module))
    skip, facts = crew.told(None if setup is None else (_skip(setup), _facts(setup, None)))
    if skip:
        return Shaped(module=None, facts=facts, skip=skip)
    epochs = settings.epochs // settings.steps
    for step in range(1, settings.steps):
        kept = crew.told(None if setup is None else _part_of_the_way(settings, setup, loss, step))
        module = slim(module, groups_of(settings, module, example, context).found.values(), kept)
        if epochs:
            recover(module, epochs, f"step {step}")
        if setup is not None:
            now = groups_of(settings, module, example, context)
            known = {name: group for name, group in now.found.items() if name in setup.groups.found}
            setup.now, setup.groups_now = module, Groups(found=known, refused=now.refused)
    alone = recover if crew.count == 1 else None
    kept, facts = crew.told(crew.in_main(lambda: _finish(settings, setup, loss, alone)))
    if not kept and settings.steps == 1:
        return Shaped(module=None, facts=facts, skip="no channel can go without losing more accuracy than is allowed")
    return Shaped(module=slim(module, groups_of(settings, module, example, context).found.values(), kept), facts=facts)


def _finish(settings: Prune, setup: Setup | None, loss: Loss, recover: Recover | None) -> tuple[Kept, dict[str, Any]]:
    """Which channels stay in the end, and how that was found."""
    assert setup is not None, "the main process prepared it"
    context = setup.context
    importance = score(settings, setup, loss)
    costs = costs_of(setup)
    if ACCURACY in setup.goals:
        if recover is None:
            raise StageError("prune.until: accuracy_drop is looked for in one process: start it without torchrun, or "
                             "prune to a speedup, a latency_ms or a size_mb")  # fmt: skip
        widths, facts = furthest(setup, importance, costs, recover, limit=setup.goals[ACCURACY])
        return kept_channels(setup.groups_now, importance, widths), {**_facts(setup, None), **facts}
    outcome = run(setup, importance, costs)
    if not outcome.chosen.is_met:
        context.note(unmet_words(outcome, setup.groups.refused))
    facts = _facts(setup, outcome)
    if facts["drift"]:
        context.note(facts["drift"])
    if facts["noise"]:
        context.note(facts["noise"])
    return kept_channels(setup.groups_now, importance, outcome.chosen.widths), facts


def _part_of_the_way(settings: Prune, setup: Setup, loss: Loss, step: int) -> Kept:
    """What stays after one of several steps: each takes an equal part of what has to go, by the tables."""
    importance = score(settings, setup, loss)
    now = given(costs_of(setup), setup)
    limits = []
    for one in reach(setup.goals, setup.whole, setup.whole):
        cost = now[RESOURCES[one.goal]]
        limits.append(Limit(cost=cost, share=cost.start - (cost.start - one.limit) * step / settings.steps))
    found = allocate(setup.groups_now.found, importance, limits)
    return kept_channels(setup.groups_now, importance, found.widths)


def furthest(
    setup: Setup, importance: Importance, costs: Mapping[Resource, Corrected], recover: Recover, *, limit: float
) -> tuple[dict[str, int], dict[str, Any]]:
    """The widths that cost least time and lose no more accuracy than `limit` points, after a short recovery: by halving
    the range of times in which they lie. Longer recovery brings more back; that is kept as a reserve."""
    data = setup.context.data
    before = quality(setup.module, data.deciding, data)
    cost = given(costs, setup)["time"]
    groups = setup.groups_now
    narrowest = allocate(groups.found, importance, [Limit(cost=cost, share=-1.0)]).widths
    low, high = cost.value(narrowest), cost.value(groups.full())
    best = groups.full()
    trials: list[dict[str, Any]] = []
    for number in range(BISECTIONS):
        share = (low + high) / 2
        widths = allocate(groups.found, importance, [Limit(cost=cost, share=share)]).widths
        small = slim(setup.now, groups.found.values(), kept_channels(groups, importance, widths))
        recover(small, 1, f"try {number + 1}")
        drop = before - quality(small, data.deciding, data)
        fits = drop <= limit
        trials.append({"predicted": cost.value(widths), "drop": drop, "met": fits, "widths": widths,
                       "importance_kept": importance.kept(widths)})  # fmt: skip
        if fits:
            best, high = widths, share
        else:
            low = share
    found = [trial for trial in trials if trial["widths"] == best]
    drop = found[0]["drop"] if found else 0.0
    reached = {"goal": ACCURACY, "value": drop, "limit": limit, "met": drop <= limit}
    return dict(best), {"met": drop <= limit, "widths": dict(best), "trials": trials, "reached": [reached],
                        "importance_kept": importance.kept(best)}  # fmt: skip


def _facts(setup: Setup, outcome: Outcome | None) -> dict[str, Any]:
    """Everything that the report shows of the search, as JSON can hold it."""
    told = dict(setup.bench.prober.identity) if setup.bench else None
    facts: dict[str, Any] = {
        "goals": setup.goals,
        "measured_with": told,
        "time_is": "measured" if setup.bench else "counted in multiply-accumulates, since the device is not here",
        "form": setup.form.name,
        "forms": setup.forms,
        "groups": {name: group.width for name, group in setup.groups.found.items()},
        "not_pruned": dict(setup.groups.refused),
        "drift": None,
        "noise": None,
    }
    if outcome is None:
        return {**facts, "met": True, "reached": [one.facts() for one in reach(setup.goals, setup.whole, setup.whole)]}
    chosen = outcome.chosen
    return {
        **facts,
        "met": chosen.is_met,
        "reached": [one.facts() for one in chosen.reached],
        "widths": chosen.widths,
        "importance_kept": chosen.importance_kept,
        "trials": [trial.facts() for trial in outcome.trials],
        "front": front_facts(outcome.front),
        "why_not_met": None if chosen.is_met else unmet_words(outcome, setup.groups.refused),
        "drift": _drift([setup.whole, *(trial.seen for trial in outcome.trials)]) if setup.bench else None,
        "noise": _noise(chosen.seen),
    }


def _drift(seen: Sequence[Seen]) -> str | None:
    first, last = seen[0].baseline_ms, seen[-1].baseline_ms
    if abs(last / first - 1) <= DRIFT:
        return None
    return (
        f"the device became {'slower' if last > first else 'faster'} while candidates were timed: the unpruned network "
        f"took {first:.3g} ms at first and {last:.3g} ms at the end. Ratios hold, times in ms mean the end."
    )


def _noise(seen: Seen) -> str | None:
    if seen.half_width <= WIDE:
        return None
    return (
        "the machine was too noisy while candidates were timed: the chosen one is known to "
        f"±{100 * seen.half_width:.0f} % only, and as the whole interval has to meet the budget, more was removed than "
        "a quiet machine would ask for"
    )


def _skip(setup: Setup) -> str | None:
    """Why nothing has to be removed, where that is so."""
    reached = reach(setup.goals, setup.whole, setup.whole)
    if not reached or not all(one.is_met for one in reached):
        return None
    words = ", ".join(f"{one.goal} {one.value:.3g}" for one in reached)
    form = "the unpruned network" if setup.form.name == FLOAT else f"the unpruned network in {setup.form.name}"
    return f"{form} meets the budget already ({words}): no channel has to go"
