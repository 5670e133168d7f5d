"""The part of `compress verify` that runs the models: accuracy and speed-up once more, quickly.

A report may come from anybody, so nothing that it says is executed: no Python file that it names is imported, nothing
is fetched, and of its environment variables only those pass that merely limit what a processor may do.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ..stages.settings import DataSettings, ModelSettings
from ..stages.tasks import CLASSIFICATION, TASKS, Task
from ..targets import machine, model_input
from ..targets.errors import EdgepressError
from ..targets.measure import Engine, Measurement, measure
from ..targets.runtimes import TARGETS
from ..targets.statistics import ratio
from .checks import Check
from .report.schema import Report, Variant

if TYPE_CHECKING:
    from ..stages.data import Data

# A quick measurement is a coarse one: what differs by more than this is not noise.
RATIO_TOLERANCE = 0.10
POINTS_TOLERANCE = 0.2  # the same for a figure that counts no answers
IMAGES_TOLERANCE = 2  # answers that may fall on the other side of a tie in another build of the runtime
HARMLESS = {"ONEDNN_MAX_CPU_ISA": re.compile(r"[A-Z0-9_]{1,32}")}
ACCURACY, SPEED = "accuracy, measured again", "speed-up, measured again"


def measure_again(report: Report, folder: Path, *, data: str | None, seconds: float) -> Iterator[Check]:
    """Run the baseline and the chosen variant in turn, on the test images if they can be had."""
    baseline, chosen = _baseline_and_chosen(report)
    reason = _cannot_run(chosen)
    if reason:
        yield Check(name="measurement", ok=None, text=reason)
        return
    variants = [baseline] if chosen is baseline else [baseline, chosen]
    try:
        with tempfile.TemporaryDirectory(prefix="edgepress-verify-") as cache:
            images, labels, why_not = _samples(report, folder, data=data, cache=Path(cache))
            found = measure(
                [_engine(variant, folder) for variant in variants],
                inputs={"test": images},
                seconds=seconds,
                environment=_environment(report),
                all_cores=False,
                memory=False,
                energy=False,
            )
            if found.incomplete:
                raise KeyboardInterrupt
    except EdgepressError as error:
        yield Check(name="measurement", ok=None, text=f"the models could not be run: {error}")
        return
    for variant in variants:
        failed = found.figures[variant.name].failed
        if failed:
            yield Check(name="measurement", ok=False, text=f"{variant.name}: {failed}")
            return
    if labels is None:
        yield Check(name=ACCURACY, ok=None, text=why_not)
    else:
        for variant in variants:
            yield _accuracy(variant, found, labels, task=_task(report))
    yield _speedup(report, baseline, chosen, found)


def _cannot_run(chosen: Variant) -> str | None:
    runtime = chosen.latency_ms.runtime if chosen.latency_ms else None
    if runtime not in TARGETS:
        return "it was not timed in a runtime that is known here"
    return TARGETS[runtime].unavailable()


def _engine(variant: Variant, folder: Path) -> Engine:
    assert variant.latency_ms is not None
    precision = "fp32" if variant.precision == "fp16" else variant.precision
    return Engine(
        name=variant.name,
        path=(folder / variant.file).resolve(),
        runtime=variant.latency_ms.runtime,
        precision=precision,
        threads=max(1, min(variant.latency_ms.threads, 256)),
    )


def _environment(report: Report) -> dict[str, str]:
    told = report.profile.get("environment")
    if not isinstance(told, Mapping):
        return {}
    return {
        name: str(told[name]) for name, form in HARMLESS.items() if name in told and form.fullmatch(str(told[name]))
    }


def _samples(
    report: Report, folder: Path, *, data: str | None, cache: Path
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """Test samples as the network takes them, and labels; random ones and the reason where there are none."""
    opened, why_not = _open(report, data=data, cache=cache)
    if opened is None:
        path = (folder / report.variants[0].file).resolve().with_suffix(".onnx")
        return model_input.read(path).random(), None, why_not
    from ..stages.data import loader

    batches = list(loader(opened.test, batch_size=256, shuffle=False, seed=0, epoch=0))
    images = np.concatenate([opened.preprocessing.normalize(images).numpy() for images, _, _ in batches])
    return images, np.concatenate([labels.numpy() for _, labels, _ in batches]), ""


def _open(report: Report, *, data: str | None, cache: Path) -> tuple[Data | None, str]:
    values: dict[str, Any] = _plain_recipe(report, "data") | {"download": False}
    if report.data is not None and report.synthesis is not None:
        values["eval"] = data or values.get("eval")
        if report.synthesis.evaluated_on is None:
            return None, "there were no data: what stood for accuracy was agreement with the model on made images"
    elif data is not None:
        values["source"] = data
    source = str(values.get("eval") or values.get("source", ""))
    if data is None and (".py" in source or source.startswith("python:")):
        return None, f"the data came from Python code ({source:.100}), which is not run: name them with --data"
    try:
        settings = DataSettings.model_validate(values)
        from ..stages.data import open_data, open_judging

        if settings.eval is not None:
            return open_judging(settings, seed=report.run.seed, cache=cache), ""
        given = _had_weights(report)
        task = _task(report).name
        return open_data(settings, seed=report.run.seed, cache=cache, given_weights=given, task=task), ""
    except (EdgepressError, ValidationError) as error:
        first = str(error).splitlines()[0]
        return None, f"the data cannot be opened: {first}. Name them with --data."


def _had_weights(report: Report) -> bool:
    model = _plain_recipe(report, "model")
    return ModelSettings(source=str(model.get("source", "")), weights=model.get("weights")).has_weights


def _task(report: Report) -> Task:
    return TASKS.get(report.data.task, CLASSIFICATION) if report.data else CLASSIFICATION


def _accuracy(variant: Variant, found: Measurement, labels: NDArray[Any], *, task: Task) -> Check:
    outputs, told = found.figures[variant.name].outputs, variant.accuracy
    if outputs is None or told is None:
        return Check(name=ACCURACY, ok=None, text=f"{variant.name}: the report has no accuracy to compare with")
    if told.n != len(labels):
        seen = f"there are {len(labels)} test {task.samples} here, the report has {told.n}"
        return Check(name=ACCURACY, ok=False, text=seen)
    if told.metric != "accuracy":
        again = task.judge().value(outputs["test"], labels)
        text = f"{variant.name}: {told.metric} {again:.2f} %, the report says {told.value:.2f} %"
        return Check(name=ACCURACY, ok=abs(again - told.value) <= POINTS_TOLERANCE, text=text)
    right = int((outputs["test"].argmax(axis=1) == labels).sum())
    before = round(told.value * told.n / 100)
    text = f"{variant.name}: {right} of {len(labels)} right, the report says {before}"
    return Check(name=ACCURACY, ok=abs(right - before) <= IMAGES_TOLERANCE, text=text)


def _speedup(report: Report, baseline: Variant, chosen: Variant, found: Measurement) -> Check:
    if chosen is baseline or chosen.speedup is None:
        return Check(
            name=SPEED, ok=None, text="there is no speed-up to compare: the baseline was chosen, or it was not timed"
        )
    here, there = machine.describe().get("cpu"), report.run.machine.get("cpu")
    if here != there:
        return Check(name=SPEED, ok=None, text=f"measured on another machine ({there!s:.100}); this one is {here}")
    before, now = found.figures[baseline.name].latency, found.figures[chosen.name].latency
    if before is None or now is None:
        return Check(name=SPEED, ok=None, text="nothing was timed")
    again, (low, high) = ratio(before, now), chosen.speedup.ci95
    overlap = again.low <= high * (1 + RATIO_TOLERANCE) and again.high >= low * (1 - RATIO_TOLERANCE)
    text = (
        f"{chosen.name} is {again.value:.2f} times faster ({again.low:.2f} to {again.high:.2f}), "
        f"the report says {chosen.speedup.value:.2f} ({low:.2f} to {high:.2f})"
    )
    doubt = found.unreliable or report.verdict.unreliable
    if doubt:
        return Check(name=SPEED, ok=None, text=f"{text}; nothing follows, for timings are unreliable: {doubt:.300}")
    return Check(name=SPEED, ok=overlap, text=text)


def _baseline_and_chosen(report: Report) -> tuple[Variant, Variant]:
    """Both variants; the same one where the baseline was chosen."""
    chosen = next((one for one in report.variants if one.name == report.chosen.name), report.variants[0])
    return report.variants[0], chosen


def _plain_recipe(report: Report, section: str) -> dict[str, Any]:
    """A section of the recipe that a report tells; empty where it is none."""
    values = report.run.recipe.get(section)
    return dict(values) if isinstance(values, dict) else {}
