"""Which versions of the model become files, and whether each file answers as torch does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..targets import cpu, operators, runtimes
from ..targets.errors import StageError
from ..targets.profiles import Profile
from .artifact import Artifact, Context, ExportedFile, Record
from .comparison import agrees, compare
from .data import loader
from .export import Export
from .fusing import Fusion, fusion
from .onnx_file import changes_of, write_onnx
from .overflow import Peak, peak
from .pruning import count_macs, count_parameters
from .quantization.frozen import freeze
from .quantization.posttraining import calibrate
from .quantization.prepare import rounded_layers
from .quantization.qat import calibration_images
from .tasks import Task
from .twins import computes_in_half, takes_half_by_flag

PARITY_IMAGES = 256
OVERFLOW_IMAGES = 128  # whose largest activation must fit into float16
INT8_TWIN = "-int8"  # behind the name of the float version that was only calibrated
NAMES = {"distill": "distilled", "prune": "pruned", "quantize": "int8"}
INT8 = "INT8 weights and activations"
CALIBRATED = f"{INT8}, calibrated and not trained"
DESCRIPTIONS = {
    "baseline": "the original model",
    "distilled": "the student, taught by the original",
    "pruned": "fewer channels, recovered with the original as teacher",
    "int8": f"{INT8}, trained with the rounding in place",
}


def versions(artifact: Artifact, context: Context) -> Iterator[tuple[str, Artifact]]:
    """The original and every version that a stage made of it, with the variant's name.

    Where the model was pruned and then quantised there is one more: the unpruned model, calibrated. It shows what
    quantisation alone gives.
    """
    yield "baseline", artifact.original
    name, unpruned = "baseline", artifact.original
    for version in artifact.lineage():
        last = version.records[-1] if version.records else None
        if last is None or last.skipped or last.stage not in NAMES:
            continue
        if last.stage == "prune" and (quantized := _quantized(artifact)) is not None:
            yield f"{name}{INT8_TWIN}", _calibrated(unpruned, quantized, context)
        name, unpruned = NAMES[last.stage], version
        yield name, version


def float_twin(variant: str, files: Sequence[ExportedFile]) -> ExportedFile | None:
    """The float file of the network that a quantised variant was made of; None where there is none."""
    if variant.endswith(INT8_TWIN):
        wanted = variant.removesuffix(INT8_TWIN)
        return next((file for file in files if file.variant == wanted), None)
    before = files[: next((place for place, file in enumerate(files) if file.variant == variant), 0)]
    return next((file for file in reversed(before) if file.precision != "int8"), None)


def _quantized(artifact: Artifact) -> Artifact | None:
    """The version that the quantize stage made."""
    return next((version for version in artifact.lineage() if version.form == "quantized"), None)


def _calibrated(unpruned: Artifact, quantized: Artifact, context: Context) -> Artifact:
    """The unpruned model, rounded in the same way and calibrated on the same images; nothing is trained."""
    assert quantized.scheme is not None
    scheme = replace(quantized.scheme, learned=False)
    settings = quantized.records[-1].settings
    batches = calibration_images(context, int(settings["calibration"]))
    are_classes = context.data.task.has_one_class_each
    found = calibrate(unpruned.module, scheme, batches, are_classes=are_classes)
    record = Record(stage="quantize", settings=settings, seconds=0.0, metrics={})
    return unpruned.next(record=record, module=found.module.eval(), form="quantized", scheme=found.scheme)


def export(settings: Export, artifact: Artifact, context: Context) -> Artifact:
    """Write one file for each version; the last one is what the target would run."""
    images, labels = parity_samples(context)
    counts = runtimes.target(context.profile.measures_with).unavailable() is None  # else the board itself counts
    if settings.require_int8 and not counts:
        raise StageError(
            f"export.require_int8 counts layers in {context.profile.measures_with}, and that runs on the board alone: "
            "leave it out, the report tells what the board counts"
        )
    files: list[ExportedFile] = []
    found = list(versions(artifact, context))
    peaks: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for place, (name, version) in enumerate(found):
        context.progress.update(place / len(found), f"{name}.onnx")
        precision, high = precision_of(name, version, context.profile), _peak_in_half(name, version, context)
        fits = high is None or high.fits
        if high is not None:
            peaks[name] = {"layer": high.layer, "value": high.value, "fits": fits}
        if high is not None and not fits:
            context.note(f"export: {name} stays in float32: {high.words()}")
            precision = "fp32"
        try:
            file = _export_one(name, version, settings, context, images, labels, precision=precision)
        except StageError as error:
            if name == "baseline":
                raise  # there is nothing to compare with
            context.note(f"export: {name} is left out: {error}")
            left_out[name] = str(error)
            continue
        overflow = (f"it stays in float32: {high.words()}",) if high is not None and not fits else ()
        files.append(replace(file, warnings=overflow, fits_float16=fits))
    fused = {
        file.variant: _fused(file, dict(found)[file.variant], context) for file in files if counts and is_int8(file)
    }
    for place, file in enumerate(files):
        if file.variant in fused and not fused[file.variant].is_enough:
            if settings.require_int8:
                raise StageError(f"{file.variant}: {fused[file.variant].warning()}, or leave out export.require_int8.")
            context.note(f"export: {file.variant}: {fused[file.variant].warning()}")
            files[place] = replace(file, warnings=(*file.warnings, fused[file.variant].warning()))
    metrics: dict[str, Any] = {file.variant: {**file.parity, "bytes": file.size_bytes} for file in files}
    metrics["opset"] = context.profile.opset
    if left_out:
        metrics["left_out"] = left_out
    if peaks:
        metrics["largest_activations"] = peaks
    if fused:
        metrics["in_int8"] = {name: one.facts() for name, one in fused.items()}
    metrics["rewritten"] = {file.variant: changes for file in files if (changes := changes_of(file.onnx))}
    return artifact.next(
        record=Record(stage="export", settings=asdict(settings), seconds=0.0, metrics=metrics),
        files=tuple(files),
    )


def _peak_in_half(name: str, version: Artifact, context: Context) -> Peak | None:
    """The largest number of a version that may be run in float16; None: it will not be."""
    profile = context.profile
    loaded_so = profile.runtime == "tensorrt" or (profile.measures_with == "openvino" and cpu.has_float16())
    written_so = precision_of(name, version, profile) == "fp16"
    if version.form == "quantized" or "fp16" not in profile.precisions or not (loaded_so or written_so):
        return None
    return peak(version.module, calibration_images(context, OVERFLOW_IMAGES))


def is_int8(file: ExportedFile) -> bool:
    return file.precision == "int8"


def _fused(file: ExportedFile, version: Artifact, context: Context) -> Fusion:
    assert version.scheme is not None
    profile = context.profile
    return fusion(
        file.path if profile.runtime == profile.measures_with else file.onnx,
        file.onnx,
        rounded=len(rounded_layers(version.module)),
        excluded=version.scheme.exclude,
        profile=profile,
    )


def _export_one(
    name: str,
    version: Artifact,
    settings: Export,
    context: Context,
    images: Tensor,
    labels: Tensor,
    *,
    precision: str,
) -> ExportedFile:
    profile = context.profile
    module = deployable(version)
    path = context.work / f"{name}.onnx"
    write_onnx(
        module,
        path,
        example=images,
        opset=profile.opset,
        dynamic_batch=settings.dynamic_batch,
        metadata={
            **version.contract.as_metadata(),
            "edgepress.variant": name,
            "edgepress.precision": precision,
        },
        half=computes_in_half(precision, profile),
        tensorrt=profile.runtime_version if profile.runtime == "tensorrt" else None,
    )
    if profile.runtime == "tensorrt":
        _refuse_unbuildable(path, profile)
    shipped = path
    if profile.runtime == "openvino":
        from ..targets.ov import save_ir

        shipped = path.with_suffix(".xml")
        save_ir(path, shipped)
    float_version = version if version.form == "float" else version.parent
    assert float_version is not None
    return ExportedFile(
        variant=name,
        precision=precision,
        path=shipped,
        onnx=path,
        description=describe(name, version),
        parameters=count_parameters(float_version.module),
        macs=count_macs(float_version.module, images[:1]),
        parity=check_parity(version, path, precision, images, labels, task=context.data.task),
    )


def describe(name: str, version: Artifact) -> str:
    """What was done to a variant, in a few words."""
    if name.endswith(INT8_TWIN):
        return f"{name.removesuffix(INT8_TWIN)} with {CALIBRATED}"
    if version.form != "quantized":
        return DESCRIPTIONS[name]
    metrics = version.records[-1].metrics
    in_float = (metrics.get("fallback") or {}).get("float_layers", [])
    if in_float:  # of whichever network met the budget so
        return f"{INT8}, {len(in_float)} layer{'' if len(in_float) == 1 else 's'} back in float"
    if "training_skipped" in metrics:
        return CALIBRATED
    # epoch 0 is the state before the first
    return f"{INT8}, calibrated; training made it no better" if not metrics.get("best_epoch", 1) else DESCRIPTIONS[name]


def precision_of(name: str, version: Artifact, profile: Profile) -> str:
    """What the file computes in. The baseline stays as the user gave it."""
    if version.form == "quantized":
        return "int8"
    if name == "baseline" or "fp16" not in profile.precisions or profile.runtime != "tensorrt":
        return "fp32"
    return "fp32" if takes_half_by_flag(profile) else "fp16"


def deployable(version: Artifact) -> nn.Module:
    """The network in the form that is exported."""
    if version.form == "float":
        return version.module
    assert version.scheme is not None
    return freeze(version.module, version.scheme)


def parity_samples(context: Context) -> tuple[Tensor, Tensor]:
    """Real images, or texts, normalised, with their labels: validation ones, since nothing is chosen by them here."""
    batches = loader(context.data.val, batch_size=PARITY_IMAGES, shuffle=True, seed=context.seed, epoch=0)
    images, labels, _ = next(iter(batches))
    return context.data.preprocessing.normalize(images), labels


def check_parity(
    version: Artifact, path: Path, precision: str, images: Tensor, labels: Tensor, *, task: Task
) -> dict[str, Any]:
    """Answers of the file in ONNX Runtime against torch's. StageError: they are not the same network."""
    with torch.no_grad():
        wanted = version.module.eval()(images).float().numpy()
    session = runtimes.target("onnxruntime").load(path, precision="fp32", threads=1)
    got = np.concatenate([session(image[None])[0] for image in images.numpy()])
    session.close()
    figures = compare(got, wanted, metric=task.judge(), labels=labels.numpy())
    figures["ok"] = agrees(figures, precision=precision, largest=float(np.abs(wanted).max()))
    if not np.isfinite(got).all():
        raise StageError(
            f"{path.name} answers with numbers that are not finite in {precision}"
            + ("; the activations overflow float16 (largest: 65504)" if precision == "fp16" else "")
        )
    if not figures["ok"] and precision != "int8":
        raise StageError(
            f"{path.name} does not answer as torch does: largest difference {figures['max_abs_diff']:.3g} on "
            f"{len(images)} {task.samples}, agreement {100 * figures['argmax_agreement']:.1f} %"
        )
    return figures


def refuse_what_cannot_be_built(networks: Mapping[str, nn.Module], context: Context) -> None:
    """Export each network as it is, before anything is trained. StageError: the board's TensorRT would not take it."""
    profile = context.profile
    if profile.runtime != "tensorrt":
        return
    images, _ = parity_samples(context)
    for name, module in networks.items():
        path = context.work / f"{name}.onnx"
        write_onnx(
            module, path, example=images[:1], opset=profile.opset, dynamic_batch=False, metadata={},
            tensorrt=profile.runtime_version, fold=False,
        )  # fmt: skip
        _refuse_unbuildable(path, profile)


def _refuse_unbuildable(path: Path, profile: Profile) -> None:
    assert profile.runtime_version is not None
    problems = operators.check(path, version=profile.runtime_version, has_int8="int8" in profile.precisions)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise StageError(f"TensorRT {profile.runtime_version} on {profile.board} cannot build {path.name}:\n{lines}")
