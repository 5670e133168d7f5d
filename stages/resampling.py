"""Figures of many samples drawn again: how often each class was told, sorted scores, and the draws themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..targets.statistics import Interval
from .tasks import IGNORED

RESAMPLES = 400  # of a bootstrap: its ends then stand to within a tenth of the interval
RESAMPLES_AT_ONCE = 40
SAMPLES_AT_ONCE = 64  # masks of more are not counted at once: whole numbers for every pixel would fill the memory
SEED = 20_240_229  # fixed: the same answers always print the same interval

Answers = NDArray[np.float32]
Labels = NDArray[Any]  # int64 class indices, or float32 numbers
Floats = NDArray[np.float64]


def class_counts(decided: NDArray[np.int64], labels: Labels, *, classes: int) -> Floats:
    """(n, 3 classes): of each sample, how often each class was hit, told and true."""
    found = []
    for told, true in parts(decided, labels):
        count = len(true)
        sample = np.broadcast_to(np.arange(count).reshape(-1, *[1] * (true.ndim - 1)), true.shape)
        valid = true != IGNORED
        base = classes * sample[valid]
        hit = told[valid] == true[valid]
        kinds = ((base + true[valid])[hit], base + told[valid], base + true[valid])
        found.append(np.concatenate([_tally(kind, count, classes) for kind in kinds], axis=1))
    return np.concatenate(found).astype(np.float64)


def weighted_precision(scores: Answers, truth: Labels, weights: Floats) -> Floats:
    """Average precision of one label, as scikit-learn defines it, for many weightings of the samples at once.

    scores, truth: (n,). weights: (weightings, n). NaN where no sample with weight carries the label.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    last_equal = np.searchsorted(-sorted_scores, -sorted_scores, side="right") - 1  # equal scores share a threshold
    everyone = weights[:, order]
    bearers = everyone * (truth[order] > 0)
    hits, told = np.cumsum(bearers, axis=1), np.cumsum(everyone, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(hits / told)[:, last_equal]
        return np.asarray((bearers * precision).sum(axis=1) / bearers.sum(axis=1))


def _tally(cells: NDArray[np.int64], count: int, classes: int) -> NDArray[np.int64]:
    return np.bincount(cells, minlength=count * classes).reshape(count, classes)


def parts(decided: NDArray[np.int64], labels: Labels) -> Iterator[tuple[NDArray[np.int64], Labels]]:
    for start in range(0, len(labels), SAMPLES_AT_ONCE):
        place = slice(start, start + SAMPLES_AT_ONCE)
        yield decided[place], labels[place]


def draws(count: int) -> Iterator[Floats]:
    """How often each sample is drawn in each resample, some resamples at a time; the same for the same count."""
    rng = np.random.default_rng(SEED)
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):
        yield rng.multinomial(count, [1 / count] * count, size=RESAMPLES_AT_ONCE).astype(np.float64)


def middle95(values: Floats) -> Interval:
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 0.0
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
