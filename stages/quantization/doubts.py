"""What is wrong with the samples that an INT8 network is calibrated on."""

from __future__ import annotations

import torch
from torch import Tensor

from ..artifact import Context
from ..contract import Tokens
from ..splits import loader

FEW = 32  # samples: below it a range is that of these samples
COMPARED = 256  # validation samples that the calibration samples are compared with
FAR = 0.5  # standard deviations of the pixels between two means; those of 32 pictures of one kind differ by below 0.2
WIDER = 2.0  # times as much contrast, or as little


def doubts(batches: list[Tensor], context: Context) -> list[str]:
    """In sentences; none where nothing is wrong."""
    images, found = torch.cat(batches), []
    samples = context.data.task.samples
    if len(images) < FEW:
        found.append(
            f"calibrated on {len(images)} {samples}: fewer than {FEW} do not show the ranges of a network. "
            "Give more training data, or raise quantize.calibration"
        )
    found += [text for text in (_one_class(context, samples), _elsewhere(images, context, samples)) if text]
    return found


def _one_class(context: Context, samples: str) -> str | None:
    split = context.data.train or context.data.val
    if context.data.task.name != "classification" or len(context.data.classes) < 2 or not split.is_labelled:
        return None
    present = torch.unique(split.labels())
    if len(present) > 1:
        return None
    name = context.data.classes[int(present[0])]
    return (
        f"all {samples} to calibrate on are of the class {name!r}: ranges for the others are not seen. "
        "Give some of every class"
    )


def _elsewhere(images: Tensor, context: Context, samples: str) -> str | None:
    """Against the validation samples, by the mean and the contrast of each channel."""
    if isinstance(context.data.preprocessing, Tokens) or images.ndim != 4 or context.data.train is None:
        return None
    batches = loader(context.data.val, batch_size=COMPARED, shuffle=True, seed=context.seed, epoch=0)
    others = context.data.preprocessing.normalize(next(iter(batches))[0])
    mean, contrast = _moments(images)
    their_mean, their_contrast = _moments(others)
    distance = float(((mean - their_mean).abs() / their_contrast).max())
    ratio = float((contrast / their_contrast).clamp(min=1e-6).log().abs().max().exp())
    if distance <= FAR and ratio <= WIDER:
        return None
    return (
        f"the {samples} to calibrate on look unlike the validation {samples}: their mean lies {distance:.1f} standard "
        f"deviations apart, their contrast differs {ratio:.1f} times. Ranges from another distribution cost accuracy"
    )


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    channels = images.transpose(0, 1).flatten(1)
    return channels.mean(dim=1), channels.std(dim=1).clamp(min=1e-6)
