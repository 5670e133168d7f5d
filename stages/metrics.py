"""The figure that judges a task's answers, how sure it is, and how it changed: scikit-learn's metrics and a bootstrap.

Every figure is in per cent and higher is better, so that a budget in points holds for every task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..targets.statistics import disagreements, mcnemar, paired_drop, wilson
from .resampling import Answers, Floats, Labels, class_counts, draws, middle95, parts, weighted_precision
from .tasks import IGNORED

CLOSE = 0.1  # of the spread of the answers: numbers that lie nearer to each other agree


class Metric(Protocol):
    """Judges answers: (n, classes), (n, classes, height, width) or (n, length, classes)."""

    name: str

    def value(self, answers: Answers, labels: Labels) -> float:
        """The figure, in per cent."""

    def facts(self, answers: Answers, labels: Labels, before: Answers | None = None) -> dict[str, Any]:
        """The figure with its interval and what stands beside it; against the baseline's answers, its drop."""

    def agreement(self, got: Answers, wanted: Answers, labels: Labels | None = None) -> float:
        """The share of answers, 0 to 1, that come to the same; where they are for places, of those with a label."""


class Accuracy:
    """Share of the samples that are answered rightly."""

    name = "accuracy"

    def __init__(self, *, also: bool = False) -> None:
        """also: macro F1 too."""
        self._also = also

    def right(self, answers: Answers, labels: Labels) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = answers.argmax(axis=1) == labels
        return right

    def value(self, answers: Answers, labels: Labels) -> float:
        return 100 * float(self.right(answers, labels).mean())

    def facts(self, answers: Answers, labels: Labels, before: Answers | None = None) -> dict[str, Any]:
        right = self.right(answers, labels)
        count, correct = len(right), int(right.sum())
        found: dict[str, Any] = {"value": 100 * correct / count, "n": count, "ci95": wilson(correct, count)}
        if self._also:
            from sklearn.metrics import f1_score

            found["also"] = {"macro F1, %": 100 * float(f1_score(labels, answers.argmax(axis=1), average="macro"))}
        if before is not None:
            was_right = self.right(before, labels)
            drop, low, high = paired_drop(was_right, right)
            lost, gained = disagreements(was_right, right)
            found |= {"drop": drop, "drop_ci95": (low, high)}
            found |= {"lost": lost, "gained": gained, "mcnemar_p": mcnemar(lost, gained)}
        return found

    def agreement(self, got: Answers, wanted: Answers, labels: Labels | None = None) -> float:
        return float((got.argmax(axis=1) == wanted.argmax(axis=1)).mean())


class _Resampled(ABC):
    """A figure of all samples together: its interval comes from a bootstrap over samples, paired for the drop.

    Where no sample differs the interval of a drop shrinks to nothing.
    """

    name: str

    @abstractmethod
    def value(self, answers: Answers, labels: Labels) -> float:
        """The figure, in per cent."""

    @abstractmethod
    def also(self, answers: Answers, labels: Labels) -> dict[str, float]:
        """Figures that stand beside it, by name."""

    @abstractmethod
    def resampler(self, answers: Answers, labels: Labels) -> Callable[[Floats], Floats]:
        """(resamples, n), how often each sample is drawn -> the figure of each resample; NaN where it has none."""

    def facts(self, answers: Answers, labels: Labels, before: Answers | None = None) -> dict[str, Any]:
        figures = self._bootstrap(answers, labels)
        found: dict[str, Any] = {"metric": self.name, "value": self.value(answers, labels), "n": len(labels)}
        found |= {"ci95": middle95(figures), "also": self.also(answers, labels)}
        if before is not None:
            found["drop"] = self.value(before, labels) - found["value"]
            found["drop_ci95"] = middle95(self._bootstrap(before, labels) - figures)
        return found

    def _bootstrap(self, answers: Answers, labels: Labels) -> Floats:
        figure = self.resampler(answers, labels)
        return np.concatenate([figure(drawn) for drawn in draws(len(labels))])


class _ByClass(_Resampled):
    """A figure of what was told and what was true of each class, the mean over classes that occur."""

    def __init__(self, *, axis: int) -> None:
        """axis: of the classes in an answer."""
        self.axis = axis

    @abstractmethod
    def of(self, hits: Floats, told: Floats, true: Floats) -> Floats:
        """The share of each class; 0 / 0 where it does not occur."""

    def decided(self, answers: Answers) -> NDArray[np.int64]:
        decided: NDArray[np.int64] = answers.argmax(axis=self.axis)
        return decided

    def agreement(self, got: Answers, wanted: Answers, labels: Labels | None = None) -> float:
        same = self.decided(got) == self.decided(wanted)
        return float(same.mean() if labels is None else same[labels != IGNORED].mean())

    def resampler(self, answers: Answers, labels: Labels) -> Callable[[Floats], Floats]:
        counts = class_counts(self.decided(answers), labels, classes=answers.shape[self.axis])

        def figure(drawn: Floats) -> Floats:
            hits, told, true = np.split(drawn @ counts, 3, axis=1)
            with np.errstate(invalid="ignore"):
                by_class = self.of(hits, told, true)
            occurs = told + true > 0
            total = np.where(occurs, by_class, 0.0).sum(axis=1)
            return np.asarray(100 * total / np.maximum(1, occurs.sum(axis=1)))

        return figure


class MacroF1(_ByClass):
    """F1 of each class over all positions that are labelled, and the mean of the classes."""

    name = "macro F1"

    def of(self, hits: Floats, told: Floats, true: Floats) -> Floats:
        return 2 * hits / (told + true)

    def value(self, answers: Answers, labels: Labels) -> float:
        from sklearn.metrics import f1_score

        counts = labels != IGNORED
        return 100 * float(f1_score(labels[counts], self.decided(answers)[counts], average="macro"))

    def also(self, answers: Answers, labels: Labels) -> dict[str, float]:
        counts = labels != IGNORED
        return {"accuracy by position, %": 100 * float((self.decided(answers) == labels)[counts].mean())}


class MeanIoU(_ByClass):
    """Intersection over union of each class over all pixels that are labelled, and the mean of the classes."""

    name = "mIoU"

    def of(self, hits: Floats, told: Floats, true: Floats) -> Floats:
        return hits / (told + true - hits)

    def value(self, answers: Answers, labels: Labels) -> float:
        from sklearn.metrics import jaccard_score

        classes = answers.shape[self.axis]
        pixels = sum(
            np.bincount(classes * true[true != IGNORED] + told[true != IGNORED], minlength=classes**2)
            for told, true in parts(self.decided(answers), labels)
        )
        seen = np.flatnonzero(pixels)  # each pair of a true and a told class once, and how many pixels it stands for
        return 100 * float(
            jaccard_score(seen // classes, seen % classes, average="macro", sample_weight=np.asarray(pixels)[seen])
        )

    def also(self, answers: Answers, labels: Labels) -> dict[str, float]:
        counts = labels != IGNORED
        return {"accuracy by pixel, %": 100 * float((self.decided(answers) == labels)[counts].mean())}


class MeanAveragePrecision(_Resampled):
    """Area under precision over recall of each label that occurs, and the mean of the labels."""

    name = "mAP"

    def value(self, answers: Answers, labels: Labels) -> float:
        from sklearn.metrics import average_precision_score

        occurs = labels.any(axis=0)
        return 100 * float(average_precision_score(labels[:, occurs], answers[:, occurs], average="macro"))

    def also(self, answers: Answers, labels: Labels) -> dict[str, float]:
        from sklearn.metrics import f1_score

        return {"micro F1, %": 100 * float(f1_score(labels, answers > 0, average="micro", zero_division=0.0))}

    def agreement(self, got: Answers, wanted: Answers, labels: Labels | None = None) -> float:
        return float(((got > 0) == (wanted > 0)).mean())

    def resampler(self, answers: Answers, labels: Labels) -> Callable[[Floats], Floats]:
        def figure(drawn: Floats) -> Floats:
            by_label = [
                weighted_precision(score, truth, drawn) for score, truth in zip(answers.T, labels.T, strict=True)
            ]
            occurs = [precision for precision in by_label if not np.isnan(precision).all()]
            return np.asarray(100 * np.nanmean(np.stack(occurs), axis=0))

        return figure


class R2(_Resampled):
    """Share of the variance that is explained, the mean of the outputs; below 0 where the mean would do better."""

    name = "R²"

    def value(self, answers: Answers, labels: Labels) -> float:
        from sklearn.metrics import r2_score

        return 100 * float(r2_score(labels, answers))

    def also(self, answers: Answers, labels: Labels) -> dict[str, float]:
        from sklearn.metrics import mean_absolute_error, root_mean_squared_error

        error = float(root_mean_squared_error(labels, answers))
        return {"RMSE": error, "MAE": float(mean_absolute_error(labels, answers))}

    def agreement(self, got: Answers, wanted: Answers, labels: Labels | None = None) -> float:
        """Numbers that differ by less than a tenth of their spread."""
        near = np.abs(got - wanted) <= CLOSE * wanted.std(axis=0, keepdims=True)
        return float(near.mean())

    def resampler(self, answers: Answers, labels: Labels) -> Callable[[Floats], Floats]:
        wanted = labels - labels.mean(axis=0, dtype=np.float64)  # the spread of large numbers would drown otherwise
        error = np.square(labels - answers, dtype=np.float64)

        def figure(drawn: Floats) -> Floats:
            count = drawn.sum(axis=1, keepdims=True)
            spread = drawn @ np.square(wanted) - np.square(drawn @ wanted) / count
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(100 * (1 - (drawn @ error) / spread).mean(axis=1))

        return figure


METRICS: dict[str, Metric] = {
    "classification": Accuracy(),
    "text": Accuracy(also=True),
    "multilabel": MeanAveragePrecision(),
    "segmentation": MeanIoU(axis=1),
    "tokens": MacroF1(axis=2),
    "regression": R2(),
}
