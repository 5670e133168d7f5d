"""Search the settings of a training on the validation images, and those of the plain training that it must beat."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from ..stages.launch import processes
from ..stages.lesson import Lesson
from ..targets import durations
from ..targets.errors import RecipeError, RuntimeMissingError, StageError
from . import job, space
from .plan import Plan, PlannedStage, make
from .progress import ConsoleReporter, result_console
from .recipe import STAGES, anchor_
from .space import Axis

FOLDER = "search"  # in the output folder: the trials of every search there, and what they leave
BEST = "best.yaml"
SHOWN = 5  # trials of the table
PLAIN = {"loss": "null", "ce": "1", "kd": "0", "attack": "null", "balance": "none"}  # what a tuned baseline trains with

Kinds = Mapping[str, tuple[Sequence[Axis], Mapping[str, str]]]  # what each kind of trial may vary, and what is fixed


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search of one kind found. value: validation figure of the best trial; trials: all that ended."""

    name: str
    best: dict[str, Any]
    value: float
    trials: list[dict[str, Any]]
    importance: dict[str, float] = field(default_factory=dict)


def main(options: argparse.Namespace) -> int:
    """Run or resume a search; prints the best settings."""
    if importlib.util.find_spec("optuna") is None:
        raise RuntimeMissingError("compress search needs Optuna: pip install 'edgepress[search]'")
    if processes()[1] > 1:
        raise RecipeError("compress search runs its trials in one process: start it without torchrun")
    seconds = durations.seconds(options.timeout) if options.timeout else math.inf
    if options.trials < 1:
        raise RecipeError(f"--trials {options.trials}: at least 1")
    plan = make(job.read(options))
    stage = searched(plan, options.over)
    axes = space.parse(options.over, stage) if options.over else space.usual(stage)
    kinds: Kinds = {"recipe": (axes, {}), **_baseline(stage, axes)}
    for values in _corners(kinds, stage):
        _with(options, stage, values)  # refuses what the recipe does not take, before any work
    out = Path(options.out) if options.out else job.default_folder(plan)
    reporter = ConsoleReporter(Console(stderr=True), quiet=options.quiet)
    from .trials import Trials

    with reporter.showing():
        trials = Trials.open(plan, stage, out=out, reporter=reporter)
        found = _search(kinds, trials, options, count=options.trials, deadline=time.monotonic() + seconds)
    best = _with(options, stage, found["recipe"].best)
    _write_best(best, out)
    if options.json:
        facts = {name: vars(one) for name, one in found.items()}
        print(json.dumps({"stage": stage.name, "validation_images": trials.images, **facts}, indent=2))
    else:
        _show(stage, found, out, images=trials.images)
    return 0


def searched(plan: Plan, over: Sequence[str]) -> PlannedStage:
    """The stage whose settings are searched: that of the first --over, else distill. RecipeError: it does not train."""
    name = over[0].partition(".")[0] if over else "distill"
    stage = next((entry for entry in plan.stages if entry.name == name), None)
    trains = [entry.name for entry in plan.stages if entry.skip is None and isinstance(entry.stage, Lesson)]
    hint = (
        f"name a key of a stage that trains here: --over {trains[0]}.lr=1e-4:1e-2" if trains else "add one that trains"
    )
    if stage is None or not isinstance(stage.stage, Lesson):
        raise RecipeError(f"the recipe has no stage {name} that trains; {hint}")
    if stage.skip is not None:
        raise RecipeError(f"the stage {name} is skipped: {stage.skip}; {hint}")
    if not stage.settings["epochs"]:
        raise RecipeError(f"{name}.epochs is 0: there is no training to search")
    return stage


def _baseline(stage: PlannedStage, axes: Sequence[Axis]) -> Kinds:
    """The plain training that gets the same budget: labels alone, with what concerns it of the same space."""
    if stage.name == "train":
        return {}
    about_losses = ("ce", "kd", "at", "temperature", "loss", "attack", "balance", "weigh", "teacher")
    kept = [axis for axis in axes if axis.key.split(".")[1] not in about_losses]
    if all(axis.key != f"{stage.name}.lr" for axis in kept):
        kept.append(space.rate(stage))
    plain = PLAIN | ({"at": "0"} if hasattr(stage.stage, "at") else {})
    return {"labels alone": (kept, {f"{stage.name}.{key}": value for key, value in plain.items()})}


def _corners(kinds: Kinds, stage: PlannedStage) -> Iterator[dict[str, Any]]:
    """Settings at the ends of each axis, one axis at a time."""
    for axes, fixed in kinds.values():
        for axis in axes:
            for value in axis.ends():
                if not (
                    value == 0 and axis.key.split(".")[-1] in ("ce", "kd", "at", "weight")
                ):  # both at once may be too few
                    yield {**fixed, axis.key: value}


def _with(options: argparse.Namespace, stage: PlannedStage, values: Mapping[str, Any]) -> Plan:
    """The plan with some settings changed. RecipeError: it does not take one."""
    changed = argparse.Namespace(**{**vars(options), "set": [*options.set, *space.options(stage, values)]})
    return make(job.read(changed))


def _search(
    kinds: Kinds,
    trials: Any,
    options: argparse.Namespace,
    *,
    count: int,
    deadline: float,
) -> dict[str, Found]:
    """Trials of each kind by turns, so that time that runs out runs out for all of them."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stage = trials.stage
    with _hushed(optuna):
        studies = {name: trials.study(name, axes, fixed) for name, (axes, fixed) in kinds.items()}
        for number in range(count):
            for name, (axes, fixed) in kinds.items():
                if trials.ended(studies[name]) > number or time.monotonic() > deadline:
                    continue
                trials.run(
                    studies[name],
                    lambda trial, axes=axes, fixed=fixed: _with(
                        options, stage, {**fixed, **{axis.key: axis.suggest(trial) for axis in axes}}
                    ),
                    title=f"{name} {number + 1}/{count}",
                )
        return {name: _found(name, study, optuna) for name, study in studies.items()}


def _found(name: str, study: Any, optuna: Any) -> Found:
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        raise StageError(
            f"no trial of {name} came to an end; give it more time, or look at why trials fail in the notes above"
        )
    listed = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "epochs": len(trial.intermediate_values),
            "settings": dict(trial.params),
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]
    importance: dict[str, float] = {}
    if len(complete) >= 4 and len(study.best_trial.params) > 1:
        importance = {key: float(value) for key, value in optuna.importance.get_param_importances(study).items()}
    return Found(
        name=name,
        best=dict(study.best_trial.params),
        value=float(study.best_value),
        trials=listed,
        importance=importance,
    )


def _write_best(plan: Plan, out: Path) -> None:
    """The whole recipe with the best settings, to run as it is."""
    recipe = plan.recipe.model_dump(mode="json", exclude_unset=True)
    for name, stage in STAGES.items():
        if isinstance(recipe.get(name), dict):
            usual = TypeAdapter(stage).dump_python(stage(), mode="json")
            recipe[name] = {key: value for key, value in recipe[name].items() if value != usual[key]}
    anchor_(recipe, Path.cwd())
    text = "# The recipe with the best settings that `compress search` found on the validation images.\n"
    (out / BEST).write_text(text + yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def _show(stage: PlannedStage, found: Mapping[str, Found], out: Path, *, images: int) -> None:
    console = result_console()
    best = found["recipe"]
    for one in found.values():
        ended = sorted(one.trials, key=lambda trial: -math.inf if trial["value"] is None else -trial["value"])
        stopped = sum(trial["state"] != "complete" for trial in one.trials)
        table = Table(
            title=f"{one.name}: {len(one.trials)} trials, {stopped} of them given up early", title_justify="left"
        )
        keys = [key.removeprefix(f"{stage.name}.") for key in one.best]
        for column in ("trial", "validation", *keys):
            table.add_column(column)
        for trial in [trial for trial in ended if trial["state"] == "complete"][:SHOWN]:
            settings = [_word(trial["settings"].get(key)) for key in one.best]
            table.add_row(str(trial["number"]), f"{trial['value']:.2f}", *settings)
        console.print(table)
        if one.importance:
            parts = ", ".join(
                f"{key.removeprefix(stage.name + '.')} {share:.0%}" for key, share in one.importance.items()
            )
            console.print(f"what mattered: {parts}\n", highlight=False)
    console.print(_verdict(found, images=images), markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"\n{yaml.safe_dump(space.nested(_rounded(best.best)), sort_keys=False)}", markup=False, highlight=False
    )
    console.print(f"the whole recipe with these: {out / BEST}", markup=False, highlight=False, soft_wrap=True)


def _verdict(found: Mapping[str, Found], *, images: int) -> str:
    best = found["recipe"]
    if "labels alone" not in found:
        return f"best: {best.value:.2f} on {images} validation images"
    plain = found["labels alone"]
    difference = best.value - plain.value
    said = "beats" if difference > 0 else "does not beat"
    return (
        f"The recipe {said} labels alone, each with its best settings: {best.value:.2f} against {plain.value:.2f} on "
        f"{images} validation images ({difference:+.2f}). Both are the best of many, with one seed: the difference on "
        "other images will be nearer to 0. The test images were not looked at."
    )


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in values.items()}


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _hushed(optuna: Any) -> Iterator[None]:
    """Optuna (5.0) and SQLAlchemy (2.1) announce changes of their own that no user of this command can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
