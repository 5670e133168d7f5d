"""Teach the same student on noise or on other pictures: what images that were made are worth beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..stages.artifact import Artifact
from ..stages.contract import Preprocessing
from ..stages.data import Data
from ..stages.deployed import right_answers
from ..stages.distill.stage import Distill
from ..stages.progress import Progress
from ..stages.settings import DataSettings
from ..stages.synthesis.methods import METHODS
from ..stages.synthesis.open import open_synthetic
from ..stages.synthesis.settings import Synthesis
from ..stages.synthesis.work import updates_of
from ..targets import statistics
from .report.schema import SynthesisControl
from .store import Store
from .teachers import fingerprint

if TYPE_CHECKING:
    from .run import Reporter, Runner

STORE = "controls"  # folder of their stages, apart from those of the run: none of these students is ever shipped


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A reporter that calls the stage by what it is here."""

    reporter: Reporter
    name: str

    def stage(self, name: str) -> Progress:
        return self.reporter.stage(self.name)

    def done(self, name: str, text: str) -> None:
        self.reporter.done(self.name, text)

    def note(self, text: str) -> None:
        self.reporter.note(f"{self.name}: {text}")


def carry_out(runner: Runner, finished: Artifact, out: Path) -> list[SynthesisControl]:
    """The student of the made images first, then one for each control; nothing where the recipe asks for none.

    finished: whose history holds that student. Each control's student takes as many steps, from the same start. All
    are asked the report's test images, through ONNX Runtime in float32. Stages that are done are found again.
    """
    start = runner.start
    sources = start.plan.recipe.data.controls
    entry = next((one for one in start.plan.stages if one.name == "distill" and one.skip is None), None)
    if not sources or entry is None:
        return []
    lineage = finished.lineage()
    place = next(
        at for at, version in enumerate(lineage) if version.records and version.records[-1].stage == entry.name
    )
    before, made = lineage[place - 1], lineage[place]
    assert isinstance(entry.stage, Distill), "that was looked for"
    steps = entry.stage.epochs * _updates(start.data, entry.stage)
    told = []
    if runner.crew.is_main:
        told.append(_judged(made, start.data, start.plan.recipe.data.source, out=out))
    for source in sources:
        reporter = _Named(reporter=runner.reporter, name=f"control {source}")
        data = _opened(runner, source, before, reporter, cache=out / "cache")
        epochs = max(1, round(steps / _updates(data, entry.stage)))
        other = replace(
            runner,
            start=replace(start, data=data),
            store=Store(out / STORE, note=reporter.note),
            reporter=reporter,
            mlflow=False,
            reused=[],
        )
        student = other.carry_out(replace(entry, stage=replace(entry.stage, epochs=epochs)), before)
        if runner.crew.is_main:
            told.append(_judged(student, data, source, out=out))
    return told


def _opened(runner: Runner, source: str, model: Artifact, reporter: _Named, *, cache: Path) -> Data:
    """Images of that source; those that judge are the run's own."""
    settings, data = runner.start.plan.recipe.data, runner.start.data
    assert isinstance(data.preprocessing, Preprocessing), "images are made of nothing else"
    made = replace(settings.synthesis or Synthesis(), method="auto")  # that of the made images is no control's
    asked = DataSettings(
        source=source, shape=data.shape, mean=data.preprocessing.mean, std=data.preprocessing.std,
        augment=settings.augment, limit=settings.limit, synthesis=made,
    )  # fmt: skip
    found = open_synthetic(
        asked,
        teacher=model.module,
        fingerprint=fingerprint(model.module),
        seed=runner.start.plan.recipe.seed,
        cache=cache,
        progress=reporter.stage("images"),
        note=reporter.note,
    )
    return replace(found, test=data.test, classes=data.classes)


def _updates(data: Data, lesson: Distill) -> int:
    """Of the student in an epoch."""
    assert data.train is not None, "there are images to learn from"
    assert data.synthetic is not None, "they are no data of the task"
    method = METHODS.get(data.synthetic.method)
    if method is None:  # pictures of another kind
        return math.ceil(len(data.train) / lesson.batch_size)
    return updates_of(method, data.synthetic.settings, images=len(data.train), batch_size=lesson.batch_size)


def _judged(student: Artifact, data: Data, source: str, *, out: Path) -> SynthesisControl:
    """Times are those of the work itself, whether this run did it or an earlier one."""
    assert data.synthetic is not None, "they are no data of the task"
    seconds = student.records[-1].seconds + data.synthetic.seconds
    right = right_answers(student.module, data, folder=out / STORE)
    count = len(data.test)
    return SynthesisControl(
        source=source, value=100 * right / count, n=count, ci95=statistics.wilson(right, count), seconds=seconds
    )
