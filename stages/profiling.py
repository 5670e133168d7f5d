"""How the variants are measured, and what is kept of it: plain figures, with every sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..targets import cpu
from ..targets.errors import StageError
from ..targets.measure import Engine, measure
from ..targets.profiles import Profile
from ..targets.remote.boards import BoardFacts
from ..targets.runtimes import target
from . import carrying
from .artifact import Artifact, Context, ExportedFile, Record
from .data import Split, loader
from .evaluation import EVAL_BATCH, logits
from .explaining import explain, read_layers
from .exporting import versions
from .measured import figures_of
from .on_boards import engines_on, on_boards
from .profile import Measure
from .twins import BFLOAT, HALF, WORDS

MOST_IMAGE_BYTES = 4 * 2**30  # of one split, in memory and as a file that the measuring process reads


def profile(settings: Measure, artifact: Artifact, context: Context) -> Artifact:
    """Measure every exported variant in one interleaved run in the target's runtime."""
    splits = {"val": context.data.deciding, "test": context.data.test}
    inputs = {name: _images(split, context) for name, split in splits.items()}
    labels = {name: split.labels().numpy() for name, split in splits.items()}
    # before the measurement: when that is stopped, what it has must be written without more work
    answers = {name: _torch_answers(version, splits, context) for name, version in versions(artifact, context)}
    if context.boards:
        metrics = on_boards(settings, artifact.files, context, inputs=inputs, answers=answers, labels=labels)
        return artifact.next(record=Record(stage="profile", settings=asdict(settings), seconds=0.0, metrics=metrics))
    engines = engines_for(artifact.files, context, samples=inputs["val"])
    on_gpu = context.profile.measures_with == "tensorrt"  # of which this machine's counters tell nothing
    found = measure(
        list(engines.values()),
        inputs=inputs,
        seconds=settings.seconds,
        environment=context.profile.environment,
        all_cores=settings.all_cores and not on_gpu,
        memory=settings.memory and not on_gpu,
        energy=not on_gpu,
        batch=context.profile.batch,
        sustained_seconds=settings.sustained_seconds,
        seed=context.seed,
        progress=lambda text, share: context.progress.update(share, text),
    )
    metrics = figures_of(
        found,
        {file.variant: file.precision for file in artifact.files},
        profile=context.profile,
        metric=context.data.task.judge(),
        answers=answers,
        labels=labels,
    )
    if on_gpu:
        metrics["not_measured"] |= dict.fromkeys(("memory", "energy"), "what a GPU takes is not read")
    measured, speedups = metrics["engines"], metrics["ratios"]
    if settings.layers and found.incomplete is None:
        try:
            readings = read_layers(
                list(engines.values()),
                measured,
                images=inputs["val"],
                profile=context.profile,
                progress=lambda text, share: context.progress.update(share, text),
            )
            more = explain(
                measured,
                speedups,
                readings,
                files=artifact.files,
                images=inputs["val"],
                machine=found.machine,
                profile=context.profile,
            )
            metrics["engines"] = {name: facts | more[name] for name, facts in measured.items()}
        except KeyboardInterrupt:
            metrics["incomplete"] = "stopped while the time of layers was read"
    if context.profile.device == "none":
        metrics["bundle"] = carrying.write(
            context.work,
            artifact.files,
            context.profile,
            images=inputs["test"],
            labels=labels["test"],
            answers={name: by_split["test"] for name, by_split in answers.items()},
            seed=context.seed,
        )
    return artifact.next(record=Record(stage="profile", settings=asdict(settings), seconds=0.0, metrics=metrics))


def engines_for(files: tuple[ExportedFile, ...], context: Context, *, samples: NDArray[Any]) -> dict[str, Engine]:
    """One engine for each file, and one more for each float file and each narrower float that the CPU computes in."""
    profile = context.profile
    if profile.measures_with == "tensorrt":  # on a GPU of this machine it builds what a board would
        here = BoardFacts(python="3", home="/", boot_id="here", runtimes={"tensorrt": target("tensorrt").version()})
        return {engine.name: engine for engine in engines_on(here, files, profile, samples=samples)}
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
