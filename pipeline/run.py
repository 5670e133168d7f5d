"""Carry out a plan: stage after stage, keeping each, and end with a report."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ..stages.artifact import Artifact, Context, Progress, Record
from ..stages.contract import InputContract
from ..stages.data import Data, open_data
from ..stages.models import architecture_fingerprint, build, weights_fingerprint
from ..stages.settings import ModelSettings
from ..targets import cpu
from ..targets.errors import EdgepressError, RecipeError, RuntimeMissingError, StageError
from ..targets.runtimes import target
from .assemble import assemble, versions
from .plan import Plan, PlannedStage
from .report import render
from .report.schema import Report
from .store import Store, key_of

Build = Callable[[], nn.Module]
STORE = "stages"  # folder of finished stages in the output folder
MODELS = "models"


class Reporter(Protocol):
    """Where a run says what it does."""

    def stage(self, name: str) -> Progress:
        """A stage starts; returns where it reports how far it is."""

    def done(self, name: str, text: str) -> None:
        """A stage ended: ran, was reused, or was skipped; `text` says which."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


def run(
    plan: Plan,
    out: Path,
    reporter: Reporter,
    *,
    command: str,
    fresh: bool = False,
    builders: Mapping[str, Build] | None = None,
    data: Data | None = None,
) -> Report:
    """Run every stage that is not done yet and write the report, its renderings and the models into `out`.

    builders, data: networks and images that are already in memory, in place of what the recipe names.
    StageError, RecipeError, RuntimeMissingError: what went wrong; finished stages stay.
    """
    began, started = time.perf_counter(), datetime.datetime.now(datetime.timezone.utc)
    _refuse_missing_runtime(plan)
    _make_writable(out)
    store = Store(out / STORE, note=reporter.note)
    if fresh:
        store.forget()
    torch.manual_seed(plan.recipe.seed)
    if data is None:
        data = open_data(
            plan.recipe.data,
            seed=plan.recipe.seed,
            cache=out / "cache",
            given_weights=plan.recipe.model.weights is not None,
            progress=reporter.stage("data"),
        )
    reporter.done("data", _data_words(data))
    made = dict(builders or {}) or _builders(plan, data)
    artifact = _original(plan, data, made)
    if plan.recipe.model.weights is None and not builders and not _trains(plan):
        reporter.note("the model comes without weights and no stage trains it: its answers will be random")
    teacher = made["teacher"]() if "teacher" in made else None
    reused: list[str] = []
    for entry in plan.stages:
        artifact = _one_stage(entry, artifact, plan, data, store, reporter, made, teacher, reused)
    seconds = time.perf_counter() - began
    report = assemble(
        plan, artifact, data, command=command, started=started.isoformat(timespec="seconds"), seconds=seconds,
        reused=reused,
    )  # fmt: skip
    _ship(artifact, report, store, out)
    render.write(report, out)
    return report


def _one_stage(
    entry: PlannedStage,
    artifact: Artifact,
    plan: Plan,
    data: Data,
    store: Store,
    reporter: Reporter,
    builders: Mapping[str, Build],
    teacher: nn.Module | None,
    reused: list[str],
) -> Artifact:
    name = entry.name
    if entry.skip is not None:
        reporter.done(name, f"skipped: {entry.skip}")
        record = Record(stage=name, settings=entry.settings, seconds=0.0, metrics={}, skipped=entry.skip)
        return replace(artifact.next(record=record), key=artifact.key)
    key = _stage_key(entry, artifact, plan, data, teacher)
    found = store.load(name, key, artifact, builders)
    if found is not None:
        reused.append(name)
        reporter.done(name, f"reused from an earlier run ({found.records[-1].seconds:.1f} s then)")
        return found
    context = Context(
        data=data,
        profile=plan.profile,
        work=store.work(name, key),
        seed=plan.recipe.seed,
        build={role: make for role, make in builders.items() if role != "teacher"},
        teacher=teacher,
        progress=reporter.stage(name),
    )
    began = time.perf_counter()
    try:
        finished = entry.stage.run(artifact, context)
    except EdgepressError as error:
        raise type(error)(f"stage {name}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise StageError(f"stage {name}: out of memory. Set {name}.batch_size lower. ({error})") from error
    record = replace(finished.records[-1], seconds=time.perf_counter() - began)
    finished = replace(finished, key=key, records=(*finished.records[:-1], record))
    store.save(name, finished)
    kept = store.load(name, key, artifact, builders)
    if kept is None:
        raise StageError(f"stage {name}: what was written to {store.folder} cannot be read back; is the disk sound?")
    reporter.done(name, f"{record.seconds:.1f} s  {_metric_words(record)}")
    return kept


def _stage_key(entry: PlannedStage, artifact: Artifact, plan: Plan, data: Data, teacher: nn.Module | None) -> str:
    """Of everything that determines what the stage makes."""
    parts: dict[str, Any] = {
        "stage": entry.name,
        "settings": entry.settings,
        "parent": artifact.key,
        "data": data.fingerprint,
        "seed": plan.recipe.seed,
        "versions": versions(),
        "teacher": weights_fingerprint(teacher) if teacher is not None else None,
        "threads": torch.get_num_threads(),
    }
    if entry.name == "distill" and plan.recipe.student is not None:
        parts["student"] = plan.recipe.student.model_dump(mode="json")
    if entry.name == "prune":
        parts["multiple"] = plan.profile.channel_multiple
    if entry.name in ("quantize", "export", "profile"):
        parts["profile"] = plan.profile.model_dump(mode="json", exclude={"budget", "stages"})
        parts["weight_bits"] = cpu.weight_bits(plan.profile)
    if entry.name == "profile":
        described = cpu.describe()
        parts["machine"] = [described.get(fact) for fact in ("cpu", "instruction_sets", "usable_cores")]
    return key_of(parts)


def _builders(plan: Plan, data: Data) -> dict[str, Build]:
    """How each network of the recipe is made; the same weights each time, given or seeded."""

    def maker(settings: ModelSettings) -> Build:
        def make() -> nn.Module:
            return build(settings, classes=len(data.classes), shape=data.shape, seed=plan.recipe.seed)

        return make

    roles = {"model": plan.recipe.model, "student": plan.recipe.student, "teacher": plan.recipe.teacher}
    return {role: maker(settings) for role, settings in roles.items() if settings is not None}


def _original(plan: Plan, data: Data, builders: Mapping[str, Build]) -> Artifact:
    module = builders["model"]().eval()
    contract = InputContract(
        shape=data.shape,
        dynamic_batch=plan.recipe.section("export").dynamic_batch,
        preprocessing=data.preprocessing,
        classes=data.classes,
    )
    key = key_of(
        {
            "architecture": architecture_fingerprint(module),
            "weights": weights_fingerprint(module),
            "base": "model",
        }
    )
    return Artifact(module=module, contract=contract, base="model", key=key)


def _trains(plan: Plan) -> bool:
    return any(entry.name == "train" and entry.skip is None for entry in plan.stages)


def _refuse_missing_runtime(plan: Plan) -> None:
    """Before any work: hours of training must not end with a runtime that is not there."""
    for name in {"onnxruntime", plan.profile.measures_with}:  # exported files are checked with ONNX Runtime
        reason = target(name).unavailable()
        if reason:
            raise RuntimeMissingError(f"target {plan.profile.name}: {reason}")


def _make_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise RecipeError(
            f"cannot write to the output folder {out}: {error.strerror}. Name another with --out."
        ) from None


def _ship(artifact: Artifact, report: Report, store: Store, out: Path) -> None:
    """Copy the exported models, and the bundle for a board, to where the user looks for them."""
    shutil.rmtree(out / MODELS, ignore_errors=True)
    (out / MODELS).mkdir()
    for file in artifact.files:
        paths = {
            file.path,
            file.onnx,
            *([file.path.with_suffix(".bin")] if file.path.suffix == ".xml" else []),
        }
        for path in sorted(paths):
            shutil.copy2(path, out / MODELS / path.name)
    if report.bundle is not None:
        shutil.rmtree(out / "bundle", ignore_errors=True)
        shutil.copytree(store.folder / f"profile-{artifact.key}" / report.bundle, out / "bundle")


def _data_words(data: Data) -> str:
    train = f"{len(data.train)} train, " if data.train is not None else ""
    return f"{len(data.classes)} classes; {train}{len(data.val)} validation, {len(data.test)} test images"


def _metric_words(record: Record) -> str:
    """The figure or two that say how a stage went."""
    metrics, words = record.metrics, []
    if "macs_after" in metrics:
        words.append(f"{metrics['macs_before'] / 1e6:.3g} M to {metrics['macs_after'] / 1e6:.3g} M MACs")
    if "validation_accuracy" in metrics:
        words.append(f"validation {metrics['validation_accuracy']:.2f} %")
    return ", ".join(words)
