"""Estimates for a board that nothing was measured on: apart from every measurement, and no ground for a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..stages.artifact import ExportedFile
from ..targets.errors import StageError
from ..targets.estimate.estimating import estimate
from ..targets.profiles import Profile
from .report.schema import Estimated, Variant

WHAT = "estimated latency on the board"


def estimates_of(
    files: Sequence[ExportedFile], variants: Sequence[Variant], profile: Profile
) -> tuple[list[Estimated], dict[str, str]]:
    """One for each engine that the board would build; and, where there is none, what is missing and why.

    Nothing where the profile's device is this machine, or where a variant was measured on the device itself.
    """
    measured = any(variant.latency_ms and variant.latency_ms.where == "device" for variant in variants)
    if profile.runtime != "tensorrt" or measured:
        return [], {}
    found, missing = [], {}
    for file in files:
        for precision in _precisions(file, profile):
            try:
                one = estimate(file.onnx, profile=profile, precision=precision)
            except StageError as error:
                missing[WHAT] = str(error).removeprefix("no estimate: ")
                continue
            found.append(
                Estimated(
                    variant=file.variant, precision=precision, ms=one.ms, interval=(one.low_ms, one.high_ms),
                    basis=one.basis,
                )
            )  # fmt: skip
    return found, missing


def _precisions(file: ExportedFile, profile: Profile) -> Iterator[str]:
    """Of its engines there: a float32 file is built in FP16 too, by a flag or by a copy with other types."""
    if file.precision != "fp32":
        yield file.precision
        return
    yield from (precision for precision in ("fp32", "fp16") if precision in profile.precisions)
