"""What a run starts from: images, networks, and the original model, with a fingerprint of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..stages.artifact import Artifact
from ..stages.contract import InputContract
from ..stages.data import Data, open_data
from ..stages.models import architecture_fingerprint, build, weights_fingerprint
from ..stages.progress import Progress
from ..stages.settings import ModelSettings
from ..targets import cpu, machine
from .assemble import versions
from .plan import Plan, PlannedStage
from .store import key_of

Build = Callable[[], nn.Module]
OTHER_NETWORKS = {"distill": ("student", "teacher"), "prune": ("teacher",)}  # that a stage uses besides the model
BY_PROFILE = ("quantize", "export", "profile")  # stages that another device would make differently


@dataclass(frozen=True, kw_only=True)
class Start:
    """Everything that is there before the first stage.

    builders: how the model, and a student of its own, are made; the same weights each time. fingerprints: of the
    networks besides the model, by role.
    """

    plan: Plan
    data: Data
    builders: Mapping[str, Build]
    teacher: nn.Module | None
    original: Artifact
    fingerprints: Mapping[str, str]

    @property
    def has_random_weights(self) -> bool:
        """Nobody gave weights, and no stage will train the model."""
        trains = any(entry.name == "train" and entry.skip is None for entry in self.plan.stages)
        model = self.plan.recipe.model
        return model.weights is None and not model.source.startswith("python:") and not trains

    def key(self, entry: PlannedStage, artifact: Artifact) -> str:
        """Of everything that determines what a stage makes of an artifact."""
        recipe, profile = self.plan.recipe, self.plan.profile
        parts: dict[str, Any] = {
            "stage": entry.name,
            "settings": entry.settings,
            "parent": artifact.key,
            "data": self.data.fingerprint,
            "seed": recipe.seed,
            "versions": versions(),
            "networks": [self.fingerprints.get(role) for role in OTHER_NETWORKS.get(entry.name, ())],
            "threads": torch.get_num_threads(),
            "training_precision": recipe.training_precision,
        }
        if entry.name == "prune":
            parts["multiple"] = profile.channel_multiple
        if entry.name in BY_PROFILE:
            parts["profile"] = profile.model_dump(mode="json", exclude={"budget", "stages"})
            parts["weight_bits"] = cpu.weight_bits(profile)
        if entry.name == "profile":
            described = machine.describe()
            parts["machine"] = [described.get(fact) for fact in ("cpu", "instruction_sets", "usable_cores")]
        return key_of(parts)


def open_start(
    plan: Plan,
    *,
    cache: Path,
    progress: Progress,
    builders: Mapping[str, Build] | None = None,
    data: Data | None = None,
) -> Start:
    """Open the data and build the networks that the recipe names.

    builders, data: what is in memory already, in place of the recipe's. RecipeError: something is not as it should be.
    """
    given = dict(builders or {})
    if data is None:
        trained = plan.recipe.model.weights is not None or "model" in given
        data = open_data(plan.recipe.data, seed=plan.recipe.seed, cache=cache, given_weights=trained, progress=progress)
    made = _builders(plan, data) | given
    networks = {role: make() for role, make in made.items() if role != "model"}
    return Start(
        plan=plan,
        data=data,
        builders={role: make for role, make in made.items() if role != "teacher"},
        teacher=networks.get("teacher"),
        original=_original(plan, data, made["model"]()),
        fingerprints={role: _fingerprint(network) for role, network in networks.items()},
    )


def _builders(plan: Plan, data: Data) -> dict[str, Build]:
    def maker(settings: ModelSettings) -> Build:
        return lambda: build(settings, classes=len(data.classes), shape=data.shape, seed=plan.recipe.seed)

    roles = {"model": plan.recipe.model, "student": plan.recipe.student, "teacher": plan.recipe.teacher}
    return {role: maker(settings) for role, settings in roles.items() if settings is not None}


def _original(plan: Plan, data: Data, module: nn.Module) -> Artifact:
    contract = InputContract(
        shape=data.shape,
        dynamic_batch=plan.recipe.section("export").dynamic_batch,
        preprocessing=data.preprocessing,
        classes=data.classes,
    )
    return Artifact(module=module.eval(), contract=contract, base="model", key=_fingerprint(module))


def _fingerprint(module: nn.Module) -> str:
    return key_of({"architecture": architecture_fingerprint(module), "weights": weights_fingerprint(module)})
