"""The main job from Python."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from rich.console import Console

from ..stages.launch import processes
from ..targets.errors import RecipeError
from . import recipe as recipes
from .job import default_folder, exit_code, told_to_mlflow
from .plan import make
from .progress import ConsoleReporter
from .report.schema import Report, Variant

if TYPE_CHECKING:
    from torch import nn

    from ..stages.data import Data

    Network = str | nn.Module


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run. folder: where report.html and the models lie."""

    report: Report
    folder: Path

    @property
    def chosen(self) -> Variant:
        """The variant to ship, with its figures."""
        return next(variant for variant in self.report.variants if variant.name == self.report.chosen.name)

    @property
    def path(self) -> Path:
        """The file to ship."""
        return self.folder / self.chosen.file

    @property
    def met(self) -> bool | None:
        """Whether the budget is met; None where that is not known."""
        return self.report.verdict.met

    @property
    def exit_code(self) -> int:
        """What the command line would have returned."""
        return exit_code(self.report)


def compress(
    recipe: str | Path | None = None,
    *,
    model: Network | None = None,
    weights: str | Path | None = None,
    data: str | Mapping[str, Any] | None = None,
    teacher: Network | None = None,
    student: Network | None = None,
    target: str | None = None,
    device: str | Sequence[str] | None = None,
    budget: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    ship: str | None = None,
    track: Literal["mlflow"] | None = None,
    quiet: bool = False,
) -> Result:
    """Compress a trained network for one device, measure it there, and return the report.

    recipe: a YAML file; everything else overrides it. model, teacher, student: a source as on the command line, or a
    torch module. data: a source, or splits in memory, {"train": (images, labels), "test": (images, labels)}, with
    images as uint8 (0 to 255) or float (0 to 1) and labels as class numbers. device: a board to measure on,
    ssh://user@board, or several. settings: any other recipe key, dotted
    or nested: {"prune.ratio": 0.5}. ship: a variant to choose, whatever the guard says. track: who is told the curves
    of each training besides TensorBoard. A killed run goes on where it
    was when it is called again with the same `out`.

    RecipeError, RuntimeMissingError, StageError: with a message that says what to do.
    """
    modules = {"model": model, "teacher": teacher, "student": student}
    pairs: dict[str, Any] = {"target": target, "seed": seed, "model.weights": weights and str(weights)}
    for role, network in modules.items():
        pairs[role] = network if isinstance(network, str) or network is None else f"python:{type(network).__name__}"
    pairs["device"] = [device] if isinstance(device, str) else device and list(device)
    pairs["data"] = data if isinstance(data, str) or data is None else "python:memory"
    pairs |= {f"budget.{name}": limit for name, limit in (budget or {}).items()}
    pairs |= settings or {}
    options = [
        (key, value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True))
        for key, value in pairs.items()
        if value is not None
    ]
    plan = make(_read(recipe, options))
    folder = Path(out) if out is not None else default_folder(plan)

    from .run import run

    reporter = ConsoleReporter(Console(stderr=True), quiet=quiet or processes()[0] > 0)
    builders = {role: _copier(network) for role, network in modules.items() if _is_module(network)}
    with reporter.showing():
        report = run(
            plan,
            folder,
            reporter,
            command="edgepress.compress(...)",
            fresh=fresh,
            ship=ship,
            mlflow=told_to_mlflow(track),
            builders=builders,
            data=_in_memory(data, plan, folder) if isinstance(data, Mapping) else None,
        )
    return Result(report=report, folder=folder)


def _read(recipe: str | Path | None, options: list[tuple[str, str]]) -> recipes.Recipe:
    if recipe is None:
        return recipes.load(None, origin="the arguments", options=options)
    path = Path(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from None
    return recipes.load(text, origin=str(path), folder=path.parent, options=options)


def _is_module(network: Any) -> bool:
    return network is not None and not isinstance(network, str)


def _copier(network: Any) -> Callable[[], nn.Module]:
    """The caller's module is never changed: each stage gets a copy."""
    return lambda: copy.deepcopy(network).cpu().eval()


def _in_memory(splits: Mapping[str, Any], plan: Any, folder: Path) -> Data:
    from ..stages.data import open_memory

    return open_memory(
        splits,
        plan.recipe.data,
        seed=plan.recipe.seed,
        given_weights=True,
        cache=folder / "cache",
        task=plan.recipe.task,
    )
