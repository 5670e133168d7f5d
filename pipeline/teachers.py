"""Open the teachers that a recipe names: networks, other weights for the model, and what an earlier run left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..stages.data import Data
from ..stages.distill.teacher_settings import WORDS, TeacherSettings, by_name
from ..stages.models import architecture_fingerprint, build, weights_fingerprint
from ..stages.settings import ModelSettings
from ..stages.weights import load_weights_
from ..targets.errors import RecipeError, did_you_mean
from .recipe import Recipe
from .store import STORE, Store, key_of

Taught = Mapping[str, nn.Module | str]  # by name: a network, or a word for what each stage makes of its own
BY_RECIPE = ("distill", "prune")  # stages that the recipe's own `teacher` is for; the others name theirs


@dataclass(frozen=True, kw_only=True)
class Staffroom:
    """Opens each teacher once, however many stages name it.

    builders: networks that are in memory, by role, in place of what the recipe names.
    """

    recipe: Recipe
    data: Data
    builders: Mapping[str, Callable[[], nn.Module]]
    note: Callable[[str], None] = lambda text: None
    opened: dict[str, nn.Module] = field(default_factory=dict)

    def of(self, stage: str, settings: Any) -> Taught:
        """The teachers of one stage by name; none: the stage's own choice. RecipeError: one cannot be opened."""
        named = getattr(settings, "teacher", None) or (self.recipe.teacher if stage in BY_RECIPE else None)
        return {name: self._open(name, one) for name, one in by_name(named or ()).items()}

    def _open(self, name: str, teacher: TeacherSettings) -> nn.Module | str:
        if teacher.kind == "word" and teacher.weights is None:
            return teacher.source
        key = json.dumps({**asdict(teacher), "name": None}, sort_keys=True, default=str)
        if key not in self.opened:
            try:
                self.opened[key] = self._made(teacher)
            except RecipeError as error:
                words = str(error).replace("model.source", "source").replace("model.weights", "weights")
                raise RecipeError(f"teacher {name}: {words}") from error
        return self.opened[key]

    def _made(self, teacher: TeacherSettings) -> nn.Module:
        if teacher.source.startswith("python:") and "teacher" in self.builders:
            return self.builders["teacher"]().eval()
        if teacher.kind == "run":
            return _of_run(Path(teacher.source), self.data, note=self.note)
        weights = teacher.source if teacher.kind == "weights" else teacher.weights
        if teacher.kind == "weights" or teacher.source == "model":
            module = self.builders["model"]()
            load_weights_(module, str(weights))
            return module.eval()
        settings = ModelSettings(source=teacher.source, weights=weights, arguments=dict(teacher.arguments))
        return build(settings, **self.data.teachers_network, seed=self.recipe.seed, any_classes=True)


def fingerprint(module: nn.Module) -> str:
    """Equal for equal networks with equal weights."""
    return key_of({"architecture": architecture_fingerprint(module), "weights": weights_fingerprint(module)})


def fingerprints(taught: Taught) -> list[list[str]]:
    """Of everything about teachers that determines what a stage makes."""
    return [[name, who if isinstance(who, str) else fingerprint(who)] for name, who in taught.items()]


def _of_run(folder: Path, data: Data, *, note: Callable[[str], None]) -> nn.Module:
    """The float network of an earlier run that answers best: of its student, where it distilled one."""
    facts = _report(folder)
    recipe = _recipe(folder, facts)
    task = {**data.teachers_network, "classes": len(facts["data"]["classes"])}

    def maker(settings: ModelSettings) -> Callable[[], nn.Module]:
        return lambda: build(settings, **task, seed=recipe.seed, any_classes=True)

    roles = {"student": recipe.student, "model": recipe.model}
    untrained = {role: one.model_copy(update={"weights": None}) for role, one in roles.items() if one is not None}
    try:
        found = Store(folder / STORE, note=note).best_float({role: maker(one) for role, one in untrained.items()})
        if found is None and recipe.model.weights is not None:
            found = maker(recipe.model)()
    except RecipeError as error:
        raise RecipeError(
            f"{error} The run in {folder} names its networks so. Start from the folder that it was started from, or "
            "name the network and its weights: {source: ..., weights: ...}"
        ) from error
    if found is None:
        raise RecipeError(f"the run in {folder} trained no network and its model came without weights: nobody to ask")
    return found


def _report(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise RecipeError(
            f"there is no folder {folder}{did_you_mean(folder.name, WORDS)}. A teacher is one of the words "
            f"{', '.join(WORDS)}, a file of weights (.pt, .safetensors), a network as for `model`, or the folder of "
            "an earlier run"
        )
    try:
        facts: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except OSError:
        raise RecipeError(f"{folder} has no report.json: no run has ended there. Run that recipe first") from None
    except ValueError as error:
        raise RecipeError(f"{folder / 'report.json'} is no report: {error}") from None
    return facts


def _recipe(folder: Path, facts: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(facts["run"]["recipe"])
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{folder / 'report.json'} is of another version of this program: {reason}") from None
