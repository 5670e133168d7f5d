"""Carry out a plan: stage after stage, keeping each, and end with a report."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch

from ..stages.artifact import Artifact, Context, Record
from ..stages.data import Data
from ..stages.progress import Progress
from ..targets import memory
from ..targets.errors import EdgepressError, RecipeError, RuntimeMissingError, StageError
from ..targets.runtimes import target
from . import sums
from .assemble import assemble
from .plan import Plan, PlannedStage
from .report import render
from .report.schema import Report
from .start import Build, Start, open_start
from .store import Store

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
    ship: str | None = None,
) -> Report:
    """Run every stage that is not done yet and write the report, its renderings and the models into `out`.

    builders, data: networks and images that are already in memory, in place of what the recipe names. ship: a variant
    to choose whatever the guard says.
    StageError, RecipeError, RuntimeMissingError: what went wrong; finished stages stay.
    """
    began, started = time.perf_counter(), datetime.datetime.now(datetime.timezone.utc)
    _refuse_missing_runtime(plan)
    _make_writable(out)
    store = Store(out / STORE, note=reporter.note)
    if fresh:
        store.forget()
    torch.manual_seed(plan.recipe.seed)
    start = open_start(plan, cache=out / "cache", progress=reporter.stage("data"), builders=builders, data=data)
    reporter.done("data", _data_words(start.data))
    if start.has_random_weights:
        reporter.note("the model comes without weights and no stage trains it: its answers will be random")
    runner = _Runner(start=start, store=store, reporter=reporter)
    artifact = start.original
    for entry in plan.stages:
        artifact = runner.carry_out(entry, artifact)
    report = assemble(
        plan,
        artifact,
        start.data,
        command=command,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - began,
        reused=runner.reused,
        ship=ship,
    )
    _ship(artifact, report, store, out)
    render.write(report, out)
    sums.write(out)
    return report


@dataclass(frozen=True, kw_only=True)
class _Runner:
    """Carries out stages, or finds what an earlier run made of them. reused: names of the latter."""

    start: Start
    store: Store
    reporter: Reporter
    reused: list[str] = field(default_factory=list)

    def carry_out(self, entry: PlannedStage, artifact: Artifact) -> Artifact:
        """The artifact that follows."""
        name = entry.name
        if entry.skip is not None:
            self.reporter.done(name, f"skipped: {entry.skip}")
            record = Record(stage=name, settings=entry.settings, seconds=0.0, metrics={}, skipped=entry.skip)
            return replace(artifact.next(record=record), key=artifact.key)
        key = self.start.key(entry, artifact)
        found = self.store.load(name, key, artifact, self.start.builders)
        if found is not None and not _is_worth_repeating(found.records[-1]):
            self.reused.append(name)
            self.reporter.done(name, f"reused from an earlier run ({found.records[-1].seconds:.1f} s then)")
            return found
        finished = self._run(entry, artifact, key)
        self.store.save(name, finished)
        kept = self.store.load(name, key, artifact, self.start.builders)
        if kept is None:
            folder = self.store.folder
            raise StageError(f"stage {name}: what was written to {folder} cannot be read back; is the disk sound?")
        record = kept.records[-1]
        self.reporter.done(name, f"{record.seconds:.1f} s  {_metric_words(record)}".rstrip())
        return kept

    def _run(self, entry: PlannedStage, artifact: Artifact, key: str) -> Artifact:
        name, recipe = entry.name, self.start.plan.recipe
        context = Context(
            data=self.start.data,
            profile=self.start.plan.profile,
            work=self.store.work(name, key),
            seed=recipe.seed,
            build=self.start.builders,
            teacher=self.start.teacher,
            training_precision=recipe.training_precision,
            progress=self.reporter.stage(name),
        )
        began = time.perf_counter()
        memory.forget_peak()
        try:
            finished = entry.stage.run(artifact, context)
        except EdgepressError as error:
            raise type(error)(f"stage {name}: {error}") from error
        except torch.OutOfMemoryError as error:
            raise StageError(f"stage {name}: out of memory. Set {name}.batch_size lower. ({error})") from error
        record = replace(
            finished.records[-1],
            seconds=time.perf_counter() - began,
            peak_memory_mb=memory.now_mb().get("peak"),
        )
        return replace(finished, key=key, records=(*finished.records[:-1], record))


def _is_worth_repeating(record: Record) -> bool:
    """A measurement that was stopped, or that noise spoiled: the same command measures again."""
    return bool(record.metrics.get("incomplete") or record.metrics.get("unreliable"))


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
