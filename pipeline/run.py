"""Carry out a plan: stage after stage, keeping each, and end with a report."""

from __future__ import annotations

import datetime
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch

from ..stages.artifact import Artifact, Context, Record
from ..stages.crew import Crew
from ..stages.crew import crew as meet
from ..stages.data import Data
from ..stages.exporting import refuse_what_cannot_be_built
from ..stages.launch import processes
from ..stages.progress import Progress, Quiet
from ..stages.tasks import CLASSIFICATION
from ..stages.tracking import Tracker, Untracked, tracker_for
from ..targets import memory
from ..targets.bundle import MANIFEST
from ..targets.durations import duration
from ..targets.errors import EdgepressError, RecipeError, RuntimeMissingError, StageError, UnfitError
from ..targets.runtimes import target
from . import sums
from .assemble import assemble
from .boards import meet_all
from .controls import carry_out
from .importing import take_again
from .plan import Plan, PlannedStage
from .report import render
from .report.schema import Report
from .start import Build, Start, open_start
from .store import STORE, Store

MODELS = "models"
OPTIONAL = {"prune": "unpruned", "quantize": "in float"}  # stages that a model may turn out not to be made for
JOINT = ("train", "distill", "prune", "quantize")  # stages that every process takes part in; one carries out the others


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
    mlflow: bool = False,
) -> Report:
    """Run every stage that is not done yet and write the report, its renderings and the models into `out`.

    builders, data: networks and images that are already in memory, in place of what the recipe names. ship: a variant
    to choose whatever the guard says. mlflow: tell it the curves of each training, besides TensorBoard.
    Under `torchrun` every process calls this: they train together, the main one does and writes the rest.
    StageError, RecipeError, RuntimeMissingError: what went wrong; finished stages stay.
    """
    began, started = time.perf_counter(), datetime.datetime.now(datetime.timezone.utc)
    _refuse_missing_runtime(plan)
    plan, boards = meet_all(plan, note=reporter.note) if processes()[0] == 0 else (plan, ())
    make_writable(out)
    crew = meet() if processes()[1] > 1 else Crew(device=torch.device("cpu"))
    if plan.devices:
        plan = replace(plan, profile=crew.told(plan.profile))  # the main process alone asked the board
    store = Store(out / STORE, note=reporter.note)
    if fresh and crew.is_main:
        store.forget()
    torch.manual_seed(plan.recipe.seed)
    with crew.main_first():  # it fills the caches that the others find
        start = open_start(
            plan,
            cache=out / "cache",
            progress=reporter.stage("data"),
            builders=builders,
            data=data,
            boards=boards,
            note=reporter.note,
        )
    reporter.done("data", _data_words(start.data))
    if start.has_random_weights:
        reporter.note("the model comes without weights and no stage trains it: its answers will be random")
    runner = Runner(start=start, store=store, reporter=reporter, crew=crew, mlflow=mlflow)
    if crew.is_main:
        runner.refuse_what_cannot_be_built()
    artifact = start.original
    for entry in plan.stages:
        artifact = runner.carry_out(entry, artifact)
    controls = carry_out(runner, artifact, out)
    if not crew.is_main:
        crew.wait()
        return render.read(out)
    report = assemble(
        plan,
        artifact,
        start.data,
        command=command,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - began,
        reused=runner.reused,
        ship=ship,
        controls=controls,
    )
    _ship(artifact, report, store, out)
    report = take_again(report, out, note=reporter.note)
    render.write(report, out)
    sums.write(out)
    crew.wait()
    return report


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Carries out stages, or finds what an earlier run made of them. reused: names of the latter."""

    start: Start
    store: Store
    reporter: Reporter
    crew: Crew
    mlflow: bool
    reused: list[str] = field(default_factory=list)

    def carry_out(self, entry: PlannedStage, artifact: Artifact) -> Artifact:
        """The artifact that follows."""
        name = entry.name
        if entry.skip is not None:
            self.reporter.done(name, f"skipped: {entry.skip}")
            record = Record(stage=name, settings=entry.settings, seconds=0.0, metrics={}, skipped=entry.skip)
            return replace(artifact.next(record=record), key=artifact.key)
        key = self.crew.told(self.start.key(entry, artifact))
        found = self._stored(name, key, artifact)
        if found is not None and not _is_worth_repeating(found.records[-1]):
            self.reused.append(name)
            self.reporter.done(name, f"reused from an earlier run ({duration(found.records[-1].seconds)} then)")
            return found
        if self.crew.is_main or name in JOINT:
            finished = self._run(entry, artifact, key)
            if self.crew.is_main:
                self.store.save(name, finished)
        kept = self._stored(name, key, artifact)
        if kept is None:
            folder = self.store.folder
            raise StageError(f"stage {name}: what was written to {folder} cannot be read back; is the disk sound?")
        record = kept.records[-1]
        words = f"left out: {record.skipped}" if record.skipped else _metric_words(record)
        self.reporter.done(name, f"{duration(record.seconds)}  {words}".rstrip())
        return kept

    def refuse_what_cannot_be_built(self) -> None:
        """Before any work: hours of training must not end with a network that the board's TensorRT does not read."""
        export = next((entry for entry in self.start.plan.stages if entry.name == "export" and not entry.skip), None)
        if export is None:
            return
        networks = {"baseline": self.start.original.module}
        if "student" in self.start.builders:
            networks["student"] = self.start.builders["student"]()
        with tempfile.TemporaryDirectory() as folder:
            context = self.context(export, work=Path(folder), progress=Quiet(), tracker=Untracked())
            refuse_what_cannot_be_built(networks, context)

    def _stored(self, name: str, key: str, artifact: Artifact) -> Artifact | None:
        """What an earlier run made of the stage, or the main process just now; alike for every process."""
        found = self.store.load(name, key, artifact, self.start.builders) if self.crew.is_main else None
        if not self.crew.told(found is not None) or self.crew.is_main:
            return found
        found = self.store.load(name, key, artifact, self.start.builders)
        if found is None:
            raise StageError(
                f"process {self.crew.rank} does not find what the main one stored in {self.store.folder}: "
                "give all of them one folder with --out, on several machines a shared one"
            )
        return found

    def _tracker(self, entry: PlannedStage, key: str) -> Tracker:
        if not self.crew.is_main or not entry.settings.get("epochs"):
            return Untracked()
        out = self.store.folder.parent
        return tracker_for(entry.name, entry.settings, out=out, key=key, mlflow=self.mlflow, note=self.reporter.note)

    def context(self, entry: PlannedStage, *, work: Path, progress: Progress, tracker: Tracker) -> Context:
        """What surrounds a stage that works in a folder."""
        recipe = self.start.plan.recipe
        return Context(
            data=self.start.data,
            profile=self.start.plan.profile,
            work=work,
            seed=recipe.seed,
            build=self.start.builders,
            teachers=self.start.teachers.get(entry.name, {}),
            student_from=recipe.student.initialise if recipe.student else None,
            budget=self.start.plan.budget,
            boards=self.start.boards,
            cache=self.store.folder.parent / "cache" / "teachers",
            training_precision=recipe.training_precision,
            progress=progress,
            note=self.reporter.note,
            tracker=tracker,
            goals=self.start.plan.goals,
            later=self.start.plan.later(entry.name),
            tables=self.store.folder.parent / "cache" / "tables",
        )

    def _run(self, entry: PlannedStage, artifact: Artifact, key: str) -> Artifact:
        name = entry.name
        context = self.context(
            entry,
            work=self.store.work(name, key),
            progress=self.reporter.stage(name),
            tracker=self._tracker(entry, key),
        )
        began = time.perf_counter()
        memory.forget_peak()
        try:
            finished = entry.stage.run(artifact, context)
        except UnfitError as error:
            if name not in OPTIONAL:
                raise type(error)(f"stage {name}: {error}") from error
            self.reporter.note(f"stage {name} is left out, the model stays {OPTIONAL[name]}: {error}")
            record = Record(stage=name, settings=entry.settings, seconds=0.0, metrics={}, skipped=str(error))
            finished = artifact.next(record=record)
        except EdgepressError as error:
            raise type(error)(f"stage {name}: {error}") from error
        except torch.OutOfMemoryError as error:
            raise StageError(f"stage {name}: out of memory. Set {name}.batch_size lower. ({error})") from error
        finally:
            context.tracker.close()
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
    on_boards = {"tensorrt"} if plan.devices else set()  # OpenVINO writes its files here, too
    for name in {"onnxruntime", plan.profile.measures_with} - on_boards:  # exported files are checked with ONNX Runtime
        reason = target(name).unavailable()
        if reason:
            raise RuntimeMissingError(f"target {plan.profile.name}: {reason}")


def make_writable(out: Path) -> None:
    """Make the output folder. RecipeError: it cannot be made, or written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as probe:  # its own name: the processes of one job all come here
            probe.write(b"x")
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
        made, shipped = store.folder / f"profile-{artifact.key}" / report.bundle, out / "bundle"
        if not _is_same_job(made, shipped):
            shutil.rmtree(shipped, ignore_errors=True)
        shutil.copytree(made, shipped, dirs_exist_ok=True)  # beside what a board left in it


def _is_same_job(one: Path, other: Path) -> bool:
    try:
        return (one / MANIFEST).read_bytes() == (other / MANIFEST).read_bytes()
    except OSError:
        return False


def _data_words(data: Data) -> str:
    train = f"{len(data.train)} train, " if data.train is not None else ""
    decides = f"{len(data.decides)} deciding, " if data.decides is not None else ""
    counts = f"{train}{len(data.val)} validation, {decides}{len(data.test)} test"
    words = f"{len(data.classes)} classes; {counts} {data.task.samples}"
    return words if data.task is CLASSIFICATION else f"{data.task.name}, {words}"


def _metric_words(record: Record) -> str:
    """The figure or two that say how a stage went."""
    metrics, words = record.metrics, []
    if "to_budget" in metrics:
        words += [f"{one['goal']} {one['value']:.3g} before recovery" for one in metrics["to_budget"]["reached"]]
    if "macs_after" in metrics:
        words.append(f"{metrics['macs_before'] / 1e6:.3g} M to {metrics['macs_after'] / 1e6:.3g} M MACs")
    if "validation_accuracy" in metrics:
        words.append(f"validation {metrics['validation_accuracy']:.2f} %")
    return ", ".join(words)
