"""What a recipe comes to on its target: the stages in order, what is skipped and why, and where figures come from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..stages.artifact import Stage
from ..stages.prune import ACCURACY, BISECTIONS, MOST_TRIALS, TOWARDS, USUAL_RATIO, Prune
from ..targets import profiles
from ..targets.errors import RecipeError
from ..targets.profiles import Budget, Profile
from ..targets.remote.address import Address
from .recipe import STAGES, Recipe

FORM_WORDS = {
    "float": "a float model",
    "quantized": "a quantised model",
    "files": "exported files",
    "figures": "figures",
}


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """A stage with its settings. skip: why it will not run."""

    stage: Stage
    skip: str | None

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting, defaults included."""
        return asdict(self.stage)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe that can run."""

    recipe: Recipe
    profile: Profile
    budget: Budget
    stages: tuple[PlannedStage, ...]
    devices: tuple[Address, ...] = ()

    @property
    def goals(self) -> dict[str, float]:
        """Limits that pruning works towards; none where it has a ratio."""
        found = [entry.stage for entry in self.stages if isinstance(entry.stage, Prune)]
        return goals_of(found[0], self.budget) if found and found[0].ratio is None else {}

    def later(self, name: str) -> dict[str, Stage]:
        """Stages that run after one, by name."""
        names = [entry.name for entry in self.stages]
        after = self.stages[names.index(name) + 1 :] if name in names else ()
        return {entry.name: entry.stage for entry in after if entry.skip is None}

    def pruning(self) -> str | None:
        """One sentence on how pruning to a budget goes; None where nothing is pruned to one."""
        if not self.goals:
            return None
        limits = ", ".join(f"{name} {limit:g}" for name, limit in self.goals.items())
        if ACCURACY in self.goals:
            return (
                f"prune as far as {limits} allows on validation images, after an epoch of recovery for each of "
                f"{BISECTIONS} widths"
            )
        form = "INT8 where that is faster, else float" if "quantize" in self.later("prune") else "float"
        if self.profile.device != "local" and not self.devices:
            return (
                f"prune until {limits}, counted in multiply-accumulates and bytes ({form}): "
                f"{self.profile.board} cannot be reached from here"
            )
        place = f"on {self.devices[0]}" if self.devices else "here"
        return (
            f"prune until {limits} as measured with {self.profile.runtime} {place}, in the form that is shipped "
            f"({form}): times of each width of each group first (kept in the output folder), then whole networks, at "
            f"most {MOST_TRIALS} of them"
        )

    def where(self) -> str:
        """One sentence on what the figures will mean."""
        profile = self.profile
        if profile.device == "local":
            return f"measured on this machine with {profile.runtime}, which is the device"
        if self.devices:
            boards = ", ".join(map(str, self.devices))
            return f"measured on the device itself with {profile.runtime}, over ssh: {boards}"
        return (
            f"{profile.board} cannot be reached from here: figures are taken on this machine with "
            f"{profile.stand_in} and stand apart as a stand-in; nothing is claimed for the device"
        )


def make(recipe: Recipe) -> Plan:
    """Resolve a recipe. RecipeError: no such profile, or stages that cannot follow one another."""
    profile = profiles.load(recipe.target)
    if profile.device == "carried":
        raise RecipeError(
            f"profile {profile.name}: device `carried` is what `compress import` writes into a report: write none here"
        )
    devices = _devices(recipe, profile)
    if devices:
        profile = profile.model_copy(update={"device": str(devices[0])})
    names = recipe.stages if recipe.stages is not None else _default_names(recipe, profile)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"stages: {', '.join(twice)} stands twice; each stage runs once")
    alone = recipe.student is None and recipe.teacher is None
    planned = []
    for name in names:
        if name in recipe.off:
            continue
        stage = _resolved(recipe.section(name), recipe.budget or profile.budget)
        planned.append(PlannedStage(stage=stage, skip=stage.skip_reason(profile, alone=alone)))
    _check_order(planned)
    _refuse_idle_clocks(recipe, devices)
    return Plan(
        recipe=recipe, profile=profile, budget=recipe.budget or profile.budget, stages=tuple(planned), devices=devices
    )


def _devices(recipe: Recipe, profile: Profile) -> tuple[Address, ...]:
    """Boards to measure on. RecipeError: an address is none, or stands twice."""
    words = recipe.device or ((profile.device,) if profile.is_remote else ())
    found = tuple(Address.parse(word) for word in words)
    twice = sorted({str(address) for address in found if found.count(address) > 1})
    if twice:
        raise RecipeError(f"device: {', '.join(twice)} stands twice; each board is measured once")
    return found


def _refuse_idle_clocks(recipe: Recipe, devices: tuple[Address, ...]) -> None:
    """RecipeError: clocks are to be held, and no board is there whose clocks they would be."""
    measure = recipe.section("profile")
    if not devices and (measure.lock_clocks or measure.power_mode is not None):
        raise RecipeError(
            "profile.lock_clocks and profile.power_mode are of a board that is measured on: name it with --device "
            "ssh://user@board, or leave them out"
        )


def goals_of(prune: Prune, budget: Budget) -> dict[str, float]:
    """Limits of the budget that pruning works towards, where it has no ratio.

    RecipeError: it is to go as far as a limit allows that is not there.
    """
    limits = budget.limits()
    if prune.until == ACCURACY:
        if ACCURACY not in limits:
            raise RecipeError(
                "prune.until: accuracy_drop: the budget has no such limit; set one, for example "
                "--budget accuracy_drop=0.5"
            )
        return {ACCURACY: limits[ACCURACY]}
    return {name: limits[name] for name in TOWARDS if name in limits}


def _resolved(stage: Any, budget: Budget) -> Any:
    """A stage whose open settings are decided: pruning has a ratio or a budget."""
    if not isinstance(stage, Prune) or stage.ratio is not None:
        return stage
    goals = goals_of(stage, budget)
    if stage.steps > 1 and not goals:
        raise RecipeError(
            "prune.steps: there is nothing to prune to step by step; set a limit of the budget, for example "
            "--budget speedup=2"
        )
    return stage if goals else replace(stage, ratio=USUAL_RATIO)


def _default_names(recipe: Recipe, profile: Profile) -> tuple[str, ...]:
    """The profile's stages, and those that the recipe has a section for."""
    wanted = {*profile.stages, *(name for name in STAGES if getattr(recipe, name) is not None)}
    return tuple(name for name in STAGES if name in wanted)


def _check_order(planned: list[PlannedStage]) -> None:
    form, giver = "float", "the model"
    for entry in planned:
        if entry.skip is not None:
            continue
        if form not in entry.stage.takes:
            takes = " or ".join(FORM_WORDS[kind] for kind in sorted(entry.stage.takes))
            raise RecipeError(
                f"stages: {entry.name} takes {takes}, and {giver} gives {FORM_WORDS[form]}; "
                f"the order that works is {', '.join(STAGES)}"
            )
        form, giver = entry.stage.gives, entry.name
    if not any(entry.name == "export" and entry.skip is None for entry in planned):
        raise RecipeError(
            "stages: without export there is no file to ship and nothing to report of; leave it in, and profile out "
            "where nothing shall be measured"
        )
