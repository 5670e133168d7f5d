"""How the variants are measured, and what is kept of it: plain figures, with every sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..targets import cpu
from ..targets.bundle import write_bundle
from ..targets.errors import StageError
from ..targets.facts import energy_facts, latency_facts, ratios, throughputs
from ..targets.measure import Engine, Measurement, measure
from ..targets.profiles import Profile
from .artifact import Artifact, Context, ExportedFile, Record
from .comparison import agrees, compare
from .data import Split, loader
from .evaluation import EVAL_BATCH, logits
from .explaining import explain
from .exporting import versions
from .metrics import Metric
from .profile import Measure
from .twins import BFLOAT, HALF, WORDS, twin_precision, variant_of

MOST_IMAGE_BYTES = 4 * 2**30  # of one split, in memory and as a file that the measuring process reads
BUNDLE_IMAGES = 32  # enough to see on a board whether the engine answers as it should


def profile(settings: Measure, artifact: Artifact, context: Context) -> Artifact:
    """Measure every exported variant in one interleaved run in the target's runtime."""
    splits = {"val": context.data.val, "test": context.data.test}
    inputs = {name: _images(split, context) for name, split in splits.items()}
    labels = {name: split.labels().numpy() for name, split in splits.items()}
    engines = engines_for(artifact.files, context)
    # before the measurement: when that is stopped, what it has must be written without more work
    answers = {name: _torch_answers(version, splits, context) for name, version in versions(artifact, context)}
    found = measure(
        list(engines.values()),
        inputs=inputs,
        seconds=settings.seconds,
        environment=context.profile.environment,
        all_cores=settings.all_cores,
        memory=settings.memory,
        batch=context.profile.batch,
        sustained_seconds=settings.sustained_seconds,
        seed=context.seed,
        progress=lambda text, share: context.progress.update(share, text),
    )
    precisions = {file.variant: file.precision for file in artifact.files}
    measured = {
        name: _facts(
            name,
            found,
            answers[variant_of(name)],
            labels,
            metric=context.data.task.judge(),
            precision=precisions.get(name) or twin_precision(name),
        )
        for name in engines
    }
    speedups = ratios({name: figures.latency for name, figures in found.figures.items()})
    incomplete = found.incomplete
    if settings.layers and incomplete is None:
        try:
            more = explain(
                measured,
                speedups,
                files=artifact.files,
                engines=engines,
                images=inputs["val"],
                machine=found.machine,
                context=context,
                progress=lambda text, share: context.progress.update(share, text),
            )
            measured = {name: facts | more[name] for name, facts in measured.items()}
        except KeyboardInterrupt:
            incomplete = "stopped while the time of layers was read"
    metrics: dict[str, Any] = {
        "where": context.profile.where,
        "runtime": context.profile.measures_with,
        "engines": measured,
        "ratios": speedups,
        "machine": found.machine,
        "versions": found.versions,
        "caveats": [str(caveat) for caveat in found.caveats],
        "sustained": found.sustained,
        "not_measured": found.not_measured,
        "unreliable": found.unreliable,
        "incomplete": incomplete,
    }
    if context.profile.runtime == "tensorrt":
        metrics["bundle"] = _bundle(artifact, context, inputs["test"], answers).name
    return artifact.next(record=Record(stage="profile", settings=asdict(settings), seconds=0.0, metrics=metrics))


def engines_for(files: tuple[ExportedFile, ...], context: Context) -> dict[str, Engine]:
    """One engine for each file, and one more for each float file and each narrower float that the CPU computes in."""
    profile = context.profile
    engines = {}
    for file in files:
        path = file.path if profile.runtime == profile.measures_with else file.onnx
        precisions = {file.variant: "int8" if file.precision == "int8" else "fp32"}
        if file.precision == "fp32":
            precisions |= {f"{file.variant}-{kind}": kind for kind in WORDS if _computes_in(kind, file, profile)}
        for name, precision in precisions.items():
            engines[name] = Engine(
                name=name, path=path, runtime=profile.measures_with, precision=precision, threads=profile.threads
            )
    return engines


def _computes_in(kind: str, file: ExportedFile, profile: Profile) -> bool:
    """Whether this CPU, and the runtime on it, computes the file in bfloat16 or float16."""
    if kind not in profile.precisions or profile.measures_with != "openvino":
        return False
    return {BFLOAT: cpu.has_bfloat16, HALF: cpu.has_float16}[kind]() and (kind != HALF or file.fits_float16)


def _images(split: Split, context: Context) -> NDArray[Any]:
    """Every image, or text, of a split as the network takes it. StageError: they, or the answers, fill the memory."""
    data = context.data
    answer = data.task.answer_shape(1, classes=len(data.classes), shape=split.shape)
    input_bytes = np.dtype(data.preprocessing.dtype).itemsize * math.prod(split.shape)
    for what, each in (("as the network takes them", input_bytes), ("answers", 4 * math.prod(answer))):
        if len(split) * each > MOST_IMAGE_BYTES:
            raise StageError(
                f"{len(split)} {data.task.samples} to measure accuracy on are {len(split) * each / 2**30:.0f} GiB "
                f"{what}; set data.limit to {MOST_IMAGE_BYTES // each} or fewer"
            )
    batches = loader(split, batch_size=EVAL_BATCH, shuffle=False, seed=0, epoch=0)
    normalized = [context.data.preprocessing.normalize(images).numpy() for images, _, _ in batches]
    return np.concatenate(normalized)


def _torch_answers(version: Artifact, splits: Mapping[str, Split], context: Context) -> dict[str, NDArray[np.float32]]:
    return {
        name: logits(version.module, split, context.data.preprocessing)[0].numpy() for name, split in splits.items()
    }


def _facts(
    name: str,
    found: Measurement,
    answers: Mapping[str, NDArray[np.float32]],
    labels: Mapping[str, NDArray[Any]],
    *,
    metric: Metric,
    precision: str,
) -> dict[str, Any]:
    """Everything that is reported of one engine, as JSON can hold it."""
    mine = found.figures[name]
    facts: dict[str, Any] = {
        "failed": mine.failed,
        "torch_accuracy": metric.value(answers["test"], labels["test"]),
        "latency": latency_facts(mine.latency),
        "all_cores": latency_facts(mine.all_cores),
        "throughput": throughputs(mine, batch=found.batch),
        "memory_mb": mine.memory_mb,
        "system_drop_mb": mine.system_drop_mb,
        "cold_start": mine.cold_start_ms,
        "energy": energy_facts(mine.energy),
        "int8": mine.int8,
    }
    if mine.outputs is None:
        return facts
    baseline = found.figures["baseline"].outputs
    before = baseline["test"] if name != "baseline" and baseline is not None else None
    facts["val_accuracy"] = metric.value(mine.outputs["val"], labels["val"])
    facts["accuracy"] = metric.facts(mine.outputs["test"], labels["test"], before)
    parity = compare(mine.outputs["test"], answers["test"], metric=metric, labels=labels["test"])
    largest = float(np.abs(answers["test"]).max())
    facts["parity"] = parity | {"ok": agrees(parity, precision=precision, largest=largest)}
    return facts


def _bundle(
    artifact: Artifact,
    context: Context,
    images: NDArray[Any],
    answers: Mapping[str, Mapping[str, NDArray[np.float32]]],
) -> Path:
    """What somebody with the board needs to build and time the engines there."""
    return write_bundle(
        context.work / "bundle",
        {file.variant: file.onnx for file in artifact.files},
        profile=context.profile,
        samples=images[:BUNDLE_IMAGES],
        expected={name: by_split["test"][:BUNDLE_IMAGES] for name, by_split in answers.items()},
    )
