"""How the variants are measured, and what is kept of it: plain figures, with every sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..targets import cpu
from ..targets.bundle import write_bundle
from ..targets.facts import latency_facts, ratios
from ..targets.measure import Engine, Figures, measure
from ..targets.statistics import paired_drop, wilson
from .artifact import Artifact, Context, ExportedFile, Record
from .data import Split, loader
from .evaluation import EVAL_BATCH, logits
from .exporting import compare, versions
from .profile import Measure

BUNDLE_IMAGES = 32  # enough to see on a board whether the engine answers as it should


def profile(settings: Measure, artifact: Artifact, context: Context) -> Artifact:
    """Measure every exported variant in one interleaved run in the target's runtime."""
    splits = {"val": context.data.val, "test": context.data.test}
    inputs = {name: _images(split, context) for name, split in splits.items()}
    labels = {name: split.labels().numpy() for name, split in splits.items()}
    engines = engines_for(artifact.files, context)
    found = measure(
        list(engines.values()),
        inputs=inputs,
        seconds=settings.seconds,
        environment=context.profile.environment,
        all_cores=settings.all_cores,
        memory=settings.memory,
        seed=context.seed,
        progress=lambda text, share: context.progress.update(share, text),
    )
    answers = {name: _torch_answers(version, splits, context) for name, version in versions(artifact)}
    metrics = {
        "where": context.profile.where,
        "runtime": context.profile.measures_with,
        "engines": {name: _facts(name, found.figures, answers[variant_of(name)], labels) for name in engines},
        "ratios": ratios({name: figures.latency for name, figures in found.figures.items()}),
        "machine": found.machine,
        "versions": found.versions,
        "caveats": found.caveats,
    }
    if context.profile.runtime == "tensorrt":
        metrics["bundle"] = _bundle(artifact, context, inputs["test"], answers).name
    return artifact.next(record=Record(stage="profile", settings=asdict(settings), seconds=0.0, metrics=metrics))


def engines_for(files: tuple[ExportedFile, ...], context: Context) -> dict[str, Engine]:
    """One engine for each file, and one more for each float file where the CPU computes in bfloat16."""
    profile = context.profile
    engines = {}
    for file in files:
        path = file.path if profile.runtime == profile.measures_with else file.onnx
        twin = file.precision == "fp32" and "bf16" in profile.precisions and cpu.has_bfloat16()
        for name in (file.variant, f"{file.variant}-bf16") if twin else (file.variant,):
            engines[name] = Engine(
                name=name,
                path=path,
                runtime=profile.measures_with,
                precision="bf16" if name != file.variant else "int8" if file.precision == "int8" else "fp32",
                threads=profile.threads,
            )
    return engines


def variant_of(engine: str) -> str:
    """The exported variant that an engine runs."""
    return engine.removesuffix("-bf16")


def _images(split: Split, context: Context) -> NDArray[np.float32]:
    """Every image of a split as the network takes it."""
    batches = loader(split, batch_size=EVAL_BATCH, shuffle=False, seed=0, epoch=0)
    normalized = [context.data.preprocessing.normalize(images).numpy() for images, _, _ in batches]
    return np.concatenate(normalized)


def _torch_answers(version: Artifact, splits: Mapping[str, Split], context: Context) -> dict[str, NDArray[np.float32]]:
    return {
        name: logits(version.module, split, context.data.preprocessing)[0].numpy() for name, split in splits.items()
    }


def _facts(
    name: str,
    figures: Mapping[str, Figures],
    answers: Mapping[str, NDArray[np.float32]],
    labels: Mapping[str, NDArray[np.int64]],
) -> dict[str, Any]:
    """Everything that is reported of one engine, as JSON can hold it."""
    mine = figures[name]
    torch_right = answers["test"].argmax(axis=1) == labels["test"]
    facts: dict[str, Any] = {
        "failed": mine.failed,
        "torch_accuracy": 100 * float(torch_right.mean()),
        "latency": latency_facts(mine.latency),
        "all_cores": latency_facts(mine.all_cores),
        "memory_mb": mine.memory_mb,
        "int8": mine.int8,
    }
    if mine.outputs is None:
        return facts
    right = {split: mine.outputs[split].argmax(axis=1) == labels[split] for split in ("val", "test")}
    count, correct = len(right["test"]), int(right["test"].sum())
    facts["val_accuracy"] = 100 * float(right["val"].mean())
    facts["accuracy"] = {"value": 100 * correct / count, "n": count, "ci95": wilson(correct, count)}
    facts["parity"] = compare(mine.outputs["test"], answers["test"])
    baseline = figures["baseline"].outputs
    if name != "baseline" and baseline is not None:
        before = baseline["test"].argmax(axis=1) == labels["test"]
        drop, low, high = paired_drop(before, right["test"])
        facts["accuracy"] |= {"drop": drop, "drop_ci95": (low, high)}
    return facts


def _bundle(
    artifact: Artifact,
    context: Context,
    images: NDArray[np.float32],
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
