"""Calibrate a prepared network, and train it with the rounding in place."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from ...targets.cpu import weight_bits
from ...targets.errors import StageError, did_you_mean
from ...targets.profiles import Profile
from ..artifact import Artifact, Context, Record
from ..crew import crew as meet
from ..data import loader
from ..evaluation import quality
from ..quantize import Quantize
from .additions import with_faster_additions
from .deciding import give_back, told_of_training, why_not_to_train
from .doubts import doubts
from .posttraining import calibrate
from .prepare import rounded_layers
from .scheme import Scheme
from .standing import bar
from .training import train_

CALIBRATION_BATCH = 64


def quantize(settings: Quantize, artifact: Artifact, context: Context) -> Artifact:
    """The artifact's INT8 form: calibrated; trained where that does not do; with layers in float where that does not.

    Trained or not, it is left in whichever of the two answers better.
    """
    data = context.data
    scheme = scheme_for(context.profile, exclude=settings.exclude)
    _refuse_unknown(artifact.module, settings.exclude)
    batches = calibration_images(context, settings.calibration)
    for doubt in doubts(batches, context):
        context.note(f"quantize: {doubt}")
    crew = meet()
    additions = crew.told(crew.in_main(lambda: with_faster_additions(artifact.module, scheme, context, batches)))
    scheme = additions.scheme
    if words := additions.sentence():
        context.note(f"quantize: {words}")
    context.progress.update(0.0, "calibrating")
    are_classes = data.task.has_one_class_each
    calibrated = calibrate(artifact.module, scheme, batches, are_classes=are_classes)
    module, scheme = calibrated.module, calibrated.scheme
    asked = bar(artifact.original.module, context)
    standing = asked.judge(module, context) if asked else None
    metrics: dict[str, Any] = {
        "layers": len(rounded_layers(module)),
        "weight_bits": scheme.weight_bits,
        "flavour": scheme.flavour,
        "additions": additions.facts(),
        "calibration_images": sum(map(len, batches)),
        "post_training": calibrated.facts(),
        "validation_float": quality(artifact.module, data.val, data),
        "validation_calibrated": standing.value if standing else quality(module, data.val, data),
    }
    curves: dict[str, list[float]] = {}
    spared = why_not_to_train(settings, standing)
    if spared is not None:
        metrics |= told_of_training(spared, module, artifact.module, batches, settings, context)
    else:
        curves, figures = train_(module, settings, artifact, context, batches=batches)
        metrics |= figures
        scheme = replace(scheme, learned=settings.ranges == "learned")
        standing = asked.judge(module, context) if asked else None
    if settings.fallback and asked and standing and not standing.meets:
        # where it was not trained, the calibrated network differs from the plain one by its corrected biases alone
        candidates = [calibrated.plain] if spared else [module, calibrated.plain]
        mixed, wider, metrics["fallback"] = give_back(
            candidates, calibrated, batches, asked=asked, artifact=artifact, context=context
        )
        module, scheme = (module, scheme) if mixed is None else (mixed, wider)
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


def _refuse_unknown(module: nn.Module, names: tuple[str, ...]) -> None:
    parts = dict(module.named_modules())
    for name in names:
        if name not in parts:
            raise StageError(f"quantize.exclude: the model has no module {name!r}{did_you_mean(name, parts)}")
