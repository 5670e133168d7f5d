"""What a run starts from: images, networks, and the original model, with a fingerprint of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..stages.artifact import Artifact
from ..stages.contract import InputContract
from ..stages.data import Data, open_data
from ..stages.launch import processes
from ..stages.models import build
from ..stages.progress import Progress
from ..stages.settings import ModelSettings
from ..stages.transfer import open_transfer
from ..targets import cpu, machine
from ..targets.errors import RecipeError, StageError
from ..targets.remote.measuring import Board
from .assemble import versions
from .plan import Plan, PlannedStage
from .store import key_of
from .teachers import Staffroom, Taught, fingerprint, fingerprints
from .without_data import open_made

Build = Callable[[], nn.Module]
BY_PROFILE = ("quantize", "export", "profile")  # stages that another device would make differently


@dataclass(frozen=True, kw_only=True)
class Start:
    """Everything that is there before the first stage.

    builders: how the model, and a student of its own, are made; the same weights each time. teachers: by stage, those
    that the recipe names. student: fingerprint of its initial weights, where it is a network of its own. transfer: of
    the images that distillation takes in place of the data's. boards: that are measured on.
    """

    plan: Plan
    data: Data
    builders: Mapping[str, Build]
    teachers: Mapping[str, Taught]
    original: Artifact
    student: str | None
    transfer: str | None = None
    boards: tuple[Board, ...] = ()

    @property
    def has_random_weights(self) -> bool:
        """Nobody gave weights, and no stage will train the model."""
        trains = any(entry.name == "train" and entry.skip is None for entry in self.plan.stages)
        model = self.plan.recipe.model
        return not model.has_weights and not model.source.startswith("python:") and not trains

    def key(self, entry: PlannedStage, artifact: Artifact) -> str:
        """Of everything that determines what a stage makes of an artifact."""
        recipe, profile = self.plan.recipe, self.plan.profile
        parts: dict[str, Any] = {
            "stage": entry.name,
            "settings": {key: value for key, value in entry.settings.items() if key != "teacher"},  # see teachers
            "parent": artifact.key,
            "data": self.data.fingerprint,
            "seed": recipe.seed,
            "versions": versions(),
            "student": self._student() if entry.name == "distill" else None,
            "transfer": self.transfer if entry.name == "distill" else None,
            "teachers": fingerprints(self.teachers.get(entry.name, {})),
            "threads": torch.get_num_threads(),
            "processes": processes()[1],
            "training_precision": recipe.training_precision,
        }
        if entry.name == "quantize":  # whether it trains, and what goes back to float
            budget = self.plan.budget
            parts["accuracy"] = [budget.accuracy, budget.accuracy_drop]
        if entry.name == "prune":
            parts["multiple"] = profile.channel_multiple
        goals = self.plan.goals if entry.name == "prune" else {}
        if goals:
            quantize = self.plan.later("prune").get("quantize")
            parts["goals"], parts["then"] = goals, quantize and asdict(quantize)  # type: ignore[call-overload]
        if entry.name in BY_PROFILE or goals:
            parts["profile"] = profile.model_dump(mode="json", exclude={"budget", "stages", "device"})
            parts["weight_bits"] = cpu.weight_bits(profile)
        if self.boards and (entry.name == "profile" or goals):
            parts["boards"] = [board.identity() for board in self.boards]
        elif entry.name == "profile" or goals:
            parts["device"] = profile.device
            described = machine.describe()
            parts["machine"] = [described.get(fact) for fact in ("cpu", "instruction_sets", "usable_cores")]
        return key_of(parts)

    def _student(self) -> str | list[str | None] | None:
        """What the student is before it is taught; the teachers, and the model, are in the key beside it."""
        student = self.plan.recipe.student
        return self.student if student is None or student.initialise is None else [self.student, student.initialise]


def open_start(
    plan: Plan,
    *,
    cache: Path,
    progress: Progress,
    builders: Mapping[str, Build] | None = None,
    data: Data | None = None,
    boards: tuple[Board, ...] = (),
    note: Callable[[str], None] = lambda text: None,
) -> Start:
    """Open the data and build the networks that the recipe names.

    builders, data: what is in memory already, in place of the recipe's. note: told what the user should know.
    RecipeError: something is not as it should be.
    """
    given = dict(builders or {})
    if data is None and not plan.recipe.data.is_real:
        data = open_made(plan, builders=given, cache=cache, progress=progress, note=note)
    if data is None:
        trained = plan.recipe.model.has_weights or "model" in given
        data = open_data(
            plan.recipe.data,
            seed=plan.recipe.seed,
            cache=cache,
            given_weights=trained,
            progress=progress,
            task=plan.recipe.task,
        )
    data, transfer = _with_transfer(plan, data, cache=cache, progress=progress)
    made = _builders(plan, data) | given
    room = Staffroom(recipe=plan.recipe, data=data, builders=made)
    teachers = {entry.name: room.of(entry.name, entry.stage) for entry in plan.stages if entry.skip is None}
    _refuse_a_strange_student(plan, data, made, teachers)
    return Start(
        plan=plan,
        data=data,
        builders={role: make for role, make in made.items() if role != "teacher"},
        teachers=teachers,
        original=_original(plan, data, made["model"]()),
        student=fingerprint(made["student"]()) if "student" in made else None,
        transfer=transfer,
        boards=boards,
    )


def _refuse_a_strange_student(
    plan: Plan, data: Data, made: Mapping[str, Build], teachers: Mapping[str, Taught]
) -> None:
    """Before any work: hours of training must not end with a student that its teacher's weights do not fit.

    RecipeError: they do not.
    """
    student = plan.recipe.student
    if student is None or student.initialise is None or "distill" not in teachers:
        return
    from ..stages.slimming.inherit import fit, forebear

    model = made["model"]()
    try:
        teacher = forebear(
            student.initialise, teachers["distill"] or {"model": model}, known={"model": model, "float": model}
        )
        fit(made["student"](), teacher, data.preprocessing.example(1), measured=False)
    except StageError as error:
        raise RecipeError(str(error)) from None


def _with_transfer(plan: Plan, data: Data, *, cache: Path, progress: Progress) -> tuple[Data, str | None]:
    """The data with the images that distillation wants to imitate on, and a digest of those."""
    source = plan.recipe.section("distill").data
    if source is None or all(entry.name != "distill" or entry.skip is not None for entry in plan.stages):
        return data, None
    images, digest = open_transfer(source, data, seed=plan.recipe.seed, cache=cache, progress=progress)
    note = f"distillation imitates on {len(images)} images of {source}, without labels"
    return replace(data, transfer=images, notes=(*data.notes, note)), digest


def _builders(plan: Plan, data: Data) -> dict[str, Build]:
    def maker(settings: ModelSettings) -> Build:
        return lambda: build(settings, **data.network, seed=plan.recipe.seed)

    roles = {"model": plan.recipe.model, "student": plan.recipe.student}
    return {role: maker(settings) for role, settings in roles.items() if settings is not None}


def _original(plan: Plan, data: Data, module: nn.Module) -> Artifact:
    contract = InputContract(
        shape=data.shape,
        dtype=data.preprocessing.dtype,
        dynamic_batch=plan.recipe.section("export").dynamic_batch,
        preprocessing=data.preprocessing,
        classes=data.classes,
        task=data.task.name,
    )
    return Artifact(module=module.eval(), contract=contract, base="model", key=fingerprint(module))
