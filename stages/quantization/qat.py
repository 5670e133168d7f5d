"""Calibrate a prepared network, and train it with the rounding in place."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...targets.cpu import weight_bits
from ...targets.errors import StageError, did_you_mean
from ...targets.profiles import Profile
from ..artifact import Artifact, Context, Record
from ..data import loader
from ..evaluation import quality
from ..quantize import Quantize
from .prepare import prepare, rounded_layers, set_rounding_
from .scheme import Scheme
from .switching import set_observing_
from .training import train_

CALIBRATION_BATCH = 64


def quantize(settings: Quantize, artifact: Artifact, context: Context) -> Artifact:
    """The artifact's INT8 form; calibrated, trained, and left in whichever of the two answers better."""
    data = context.data
    scheme = scheme_for(context.profile, exclude=settings.exclude)
    _refuse_unknown(artifact.module, settings.exclude)
    module = prepare(artifact.module, scheme)
    batches = calibration_images(context, settings.calibration)
    calibrate_(module, batches)
    metrics: dict[str, Any] = {
        "layers": len(rounded_layers(module)),
        "weight_bits": scheme.weight_bits,
        "flavour": scheme.flavour,
        "calibration_images": min(settings.calibration, len(data.train or data.val)),
        "validation_float": quality(artifact.module, data.val, data),
        "validation_calibrated": quality(module, data.val, data),
    }
    curves: dict[str, list[float]] = {}
    if settings.epochs:
        curves, figures = train_(module, settings, artifact, context, batches=batches)
        scheme = replace(scheme, learned=settings.ranges == "learned")
        metrics.update(figures)
    metrics["validation_accuracy"] = quality(module, data.val, data)
    record = Record(stage="quantize", settings=asdict(settings), seconds=0.0, metrics=metrics, curves=curves)
    return artifact.next(record=record, module=module.eval(), form="quantized", scheme=scheme)


def scheme_for(profile: Profile, *, exclude: tuple[str, ...] = ()) -> Scheme:
    """The scheme that a profile asks for, on the CPU at hand where that decides."""
    if profile.qdq == "none":
        raise StageError(f"profile {profile.name} has no INT8: the quantize stage has nothing to do there")
    older = profile.runtime == "tensorrt" and (profile.runtime_version or "").startswith("8.")
    return Scheme(flavour=profile.qdq, weight_bits=weight_bits(profile), exclude=exclude, float_weights=older)


def calibration_images(context: Context, count: int) -> list[Tensor]:
    """Normalised batches of training images, the same for the same seed; validation images where none train."""
    split = context.data.train or context.data.val
    batches, seen = [], 0
    for images, _, _ in loader(split, batch_size=CALIBRATION_BATCH, shuffle=True, seed=context.seed, epoch=0):
        batches.append(context.data.preprocessing.normalize(images[: count - seen]))
        seen += len(batches[-1])
        if seen >= count:
            break
    return batches


def calibrate_(module: nn.Module, batches: list[Tensor]) -> None:
    """Observe the range of every rounded activation while nothing is rounded."""
    module.eval()
    set_observing_(module, True)
    set_rounding_(module, False)
    with torch.no_grad():
        for batch in batches:
            module(batch)
    set_observing_(module, False)
    set_rounding_(module, True)


def _refuse_unknown(module: nn.Module, names: tuple[str, ...]) -> None:
    parts = dict(module.named_modules())
    for name in names:
        if name not in parts:
            raise StageError(f"quantize.exclude: the model has no module {name!r}{did_you_mean(name, parts)}")
