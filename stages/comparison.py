"""How far two sets of answers to the same images lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..targets.errors import StageError
from .metrics import METRICS, Metric
from .resampling import Labels

# Float files differ from torch by the order of additions alone. Rounded ones (INT8, and bfloat16 with its 8 bits) round
# like torch up to single steps, where a sum falls between two integers: there answers are compared and not numbers.
FLOAT_TOLERANCE = {"fp32": 1e-3, "fp16": 3e-2}
ROUNDED_AGREEMENT = 0.98
ROUNDED_SQNR_DB = (
    15.0  # below it the error is a sixth of the answers and more, even where the largest stays the largest
)
SQNR_LIMIT_DB = 150.0  # float32 itself ends there: more is written as this


def compare(
    got: NDArray[np.float32],
    wanted: NDArray[np.float32],
    *,
    metric: Metric = METRICS["classification"],
    labels: Labels | None = None,
) -> dict[str, Any]:
    """Share of equal answers, largest difference and signal to noise of two arrays, (n, classes) for most tasks.

    metric: knows which answers come to the same. labels: where these are for places, only labelled places count.
    """
    if got.shape != wanted.shape:
        raise StageError(f"the exported file answers with shape {got.shape[1:]}, torch with {wanted.shape[1:]}")
    return {
        "argmax_agreement": metric.agreement(got, wanted, labels),
        "max_abs_diff": float(np.abs(got - wanted).max()),
        "sqnr_db": sqnr_db(got, wanted),
        "n": len(got),
    }


def agrees(figures: dict[str, Any], *, precision: str, largest: float) -> bool:
    """Whether two sets of answers are those of one network. largest: absolute value that was wanted."""
    if precision in FLOAT_TOLERANCE:
        return bool(figures["max_abs_diff"] <= FLOAT_TOLERANCE[precision] * (1.0 + largest))
    return bool(figures["argmax_agreement"] >= ROUNDED_AGREEMENT and figures["sqnr_db"] >= ROUNDED_SQNR_DB)


def sqnr_db(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Ten times the logarithm of the power of the signal over that of the error. Higher is closer."""
    signal = float(np.square(wanted, dtype=np.float64).sum())
    noise = float(np.square(got.astype(np.float64) - wanted).sum())
    if noise == 0:
        return SQNR_LIMIT_DB
    if signal == 0:
        return -SQNR_LIMIT_DB
    return float(np.clip(10 * np.log10(signal / noise), -SQNR_LIMIT_DB, SQNR_LIMIT_DB))
