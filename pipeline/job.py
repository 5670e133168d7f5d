"""The main job: from options to a recipe, a plan, a run, and an exit code."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ..stages.launch import processes
from ..stages.tracking import wants_mlflow
from ..targets.errors import RecipeError, RuntimeMissingError
from . import recipe
from .plan import Plan, make
from .progress import ConsoleReporter, result_console
from .recipe import Recipe

if TYPE_CHECKING:
    from .report.schema import Report

BUDGET_MISSED = 4
INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def main(options: argparse.Namespace, *, command: str) -> int:
    """Run the job that the options describe; returns the exit code."""
    plan = make(read(options))
    out = Path(options.out) if options.out else default_folder(plan)
    is_main = processes()[0] == 0
    if options.dry_run:
        if is_main:
            show_plan(plan, out, as_json=options.json)
        return 0
    messages = Console(stderr=True)
    mlflow = told_to_mlflow(options.track)
    quiet = options.quiet or not is_main
    if not quiet:
        messages.print(f"{plan.profile.name}: {plan.where()}", markup=False, highlight=False, soft_wrap=True)
    from .run import run  # torch

    reporter = ConsoleReporter(messages, quiet=quiet)
    with reporter.showing():
        report = run(plan, out, reporter, command=command, fresh=options.fresh, ship=options.ship, mlflow=mlflow)
    if not is_main:
        return exit_code(report)
    if options.json:
        print(report.model_dump_json())
    else:
        from .report.terminal import print_report

        print_report(report, result_console())
        print(f"\nreport: {out / 'report.html'}   models: {out / 'models'}")
    if report.incomplete and not options.quiet:
        text = "stopped. What was measured is kept and marked incomplete; the same command measures again."
        messages.print(text, markup=False, highlight=False, soft_wrap=True)
    return exit_code(report)


def told_to_mlflow(asked: str | None) -> bool:
    """Whether curves go to MLflow. RuntimeMissingError: they should by an option, and it is not installed."""
    if asked == "mlflow" and importlib.util.find_spec("mlflow") is None:
        raise RuntimeMissingError("--track mlflow: mlflow is not installed: pip install 'edgepress[mlflow]'")
    return wants_mlflow(asked)


def exit_code(report: Report) -> int:
    """What a script can rely on: a budget that cannot be judged for noise is no success."""
    if report.incomplete:
        return INTERRUPTED
    too_noisy = report.verdict.unreliable is not None and bool(report.budget)
    return BUDGET_MISSED if report.verdict.met is False or too_noisy else 0


def read(options: argparse.Namespace) -> Recipe:
    """The recipe file, or the built-in example, with the options over it. RecipeError: all problems at once."""
    pairs = option_pairs(options)
    if options.recipe is not None:
        path = Path(options.recipe)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            hint = " For the built-in example give no recipe." if not path.exists() else ""
            raise RecipeError(f"cannot read the recipe {path}: {reason}.{hint}") from None
        return recipe.load(text, origin=str(path), folder=path.parent, options=pairs)
    if options.model is None:
        if options.data is not None or options.weights is not None:
            raise RecipeError("--data and --weights need a --model (or a recipe that names one)")
        text = (resources.files("edgepress") / "pipeline" / "example.yaml").read_text(encoding="utf-8")
        return recipe.load(text, origin="built-in example", options=pairs)
    return recipe.load(None, origin="the command line", options=pairs)


def option_pairs(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Options as (recipe key, value), in the order in which they override each other."""
    named = {
        "target": options.target,
        "device": "[" + ", ".join(options.device) + "]" if options.device else None,
        "device_python": options.device_python,
        "profile.lock_clocks": "true" if options.lock_clocks else None,
        "profile.power_mode": None if options.power_mode is None else str(options.power_mode),
        "model": options.model,
        "model.weights": options.weights,
        "data": options.data,
        "data.eval": options.eval_data,
        "teacher": options.teacher,
        "teacher.weights": options.teacher_weights,
        "student": options.student,
        "student.weights": options.student_weights,
        "student.initialise": options.student_initialise,
        "seed": options.seed,
    }
    pairs = [(key, value) for key, value in named.items() if value is not None]
    pairs += [(f"budget.{key}", value) for key, value in _split(options.budget, "--budget")]
    return pairs + _split(options.set, "--set")


def _split(words: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise RecipeError(f"{option} {word}: write it as KEY=VALUE, for example {option} speedup=3")
        pairs.append((key, value))
    return pairs


def default_folder(plan: Plan) -> Path:
    """compressed/MODEL-TARGET, in the working directory."""
    shipped = plan.recipe.model.source
    model = re.sub(r"[^\w.-]+", "-", shipped.rpartition(":")[2]).strip("-.") or "model"
    return Path("compressed") / f"{model}-{plan.profile.name}"


def plan_facts(plan: Plan, out: Path) -> dict[str, Any]:
    """The resolved plan as plain data."""
    return {
        "target": plan.profile.name,
        "device": [str(address) for address in plan.devices],
        "where": plan.where(),
        "out": str(out),
        "budget": plan.budget.limits(),
        "model": plan.recipe.model.model_dump(),
        "data": plan.recipe.data.model_dump(mode="json"),
        "seed": plan.recipe.seed,
        "pruning": plan.pruning(),
        "stages": [{"name": entry.name, "settings": entry.settings, "skipped": entry.skip} for entry in plan.stages],
    }


def show_plan(plan: Plan, out: Path, *, as_json: bool) -> None:
    """Print what would be done."""
    if as_json:
        print(json.dumps({**plan_facts(plan, out), **_time(plan)}, indent=2, default=list))
        return
    console = result_console()
    table = Table(title=f"plan for {plan.profile.name} ({plan.profile.board})", title_justify="left")
    table.add_column("stage")
    table.add_column("settings, or why it is skipped")
    for entry in plan.stages:
        settings = ", ".join(f"{key} {_plain(value)}" for key, value in entry.settings.items())
        table.add_row(entry.name, f"skipped: {entry.skip}" if entry.skip else settings)
    console.print(table)
    limits = ", ".join(f"{name} {limit:g}" for name, limit in plan.budget.limits().items()) or "none"
    facts = {
        "model": plan.recipe.model.source,
        "data": plan.recipe.data.source,
        "budget": limits,
        "figures": plan.where(),
        "output": str(out),
    }
    if plan.pruning():
        facts["pruning"] = str(plan.pruning())
    for name, text in {**facts, **_time(plan)}.items():
        console.print(f"{name:>8}  {text}", markup=False, highlight=False, soft_wrap=True)


def _time(plan: Plan) -> dict[str, str]:
    """What making images will take, where there are no data."""
    if plan.recipe.data.is_real:
        return {}
    from .without_data import time_words  # torch

    return {"time": time_words(plan)}


def _plain(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(str(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
