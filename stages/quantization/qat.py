"""Calibrate a prepared network, and train it with the rounding in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
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
from ..teaching import teach
from .prepare import NORMS, prepare, rounded_layers, roundings
from .scheme import Scheme

CALIBRATION_BATCH = 64
# Batch norm learns for the first part of a long training only: its statistics are the float network's and good, and
# a moving target for the ranges (Krishnamoorthi, 2018, arXiv:1806.08342, section 3.2). Short trainings leave it.
NORM_LEARNS_SHARE = 0.3
SHORT = 3  # epochs
RANGES_LEARN_SHARE = 0.5


def quantize(settings: Quantize, artifact: Artifact, context: Context) -> Artifact:
    """The artifact's INT8 form; calibrated, trained, and left in whichever of the two answers better."""
    data = context.data
    scheme = scheme_for(context.profile, exclude=settings.exclude)
    _refuse_unknown(artifact.module, settings.exclude)
    module = prepare(artifact.module, scheme)
    calibrate_(module, calibration_images(context, settings.calibration))
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
        is_real = data.synthetic is None
        with nullcontext() if is_real else resting_norms(module):
            trained, figures = teach(
                module,
                settings,
                context,
                teacher=artifact.module,
                known={"model": artifact.original.module, "float": artifact.module},
                full_precision=True,  # bfloat16 has no more steps than the grid that is being learned
                before_epoch=lambda epoch: switch_(module, epoch=epoch, epochs=settings.epochs, norms_learn=is_real),
                images=data.train,  # those that there are: a generator would have to learn the grid's errors
            )
        switch_(module, epoch=settings.epochs, epochs=settings.epochs)
        metrics.update(figures, best_epoch=trained.best_epoch)
        curves = trained.curves
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


def switch_(module: nn.Module, *, epoch: int, epochs: int, norms_learn: bool = True) -> None:
    """What is still learned in this epoch besides the weights: batch norm early, ranges in the first half.

    norms_learn: False where images were made from the network: their statistics are not those of data.
    """
    frozen = not norms_learn or epochs <= SHORT or epoch >= max(1, round(epochs * NORM_LEARNS_SHARE))
    for layer in rounded_layers(module).values():
        layer.norm_frozen = frozen
    set_observing_(module, epoch < epochs * RANGES_LEARN_SHARE)


@contextmanager
def resting_norms(module: nn.Module) -> Iterator[None]:
    """While the block runs, batch norms that are not folded answer by what they kept and keep nothing, even in train
    mode: made images must not move statistics of data (GDFQ, arXiv:2003.03603, freezes them too)."""

    def rest(norm: nn.Module, _given: object) -> None:
        norm.eval()

    handles = [part.register_forward_pre_hook(rest) for part in module.modules() if isinstance(part, NORMS)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def set_observing_(module: nn.Module, observing: bool) -> None:
    """Let the ranges follow what they see, or hold them."""
    for rounding in roundings(module):
        rounding.observing = observing


def set_rounding_(module: nn.Module, rounding: bool) -> None:
    """Switch all rounding on or off; off, the network is its float twin with batch norm folded."""
    for part in roundings(module):
        part.rounding = rounding
    for layer in rounded_layers(module).values():
        layer.rounding = rounding


def _refuse_unknown(module: nn.Module, names: tuple[str, ...]) -> None:
    parts = dict(module.named_modules())
    for name in names:
        if name not in parts:
            raise StageError(f"quantize.exclude: the model has no module {name!r}{did_you_mean(name, parts)}")
