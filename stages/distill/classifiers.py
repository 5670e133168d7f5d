"""The last layers of student and teacher, for losses that look at their weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ...targets.errors import StageError
from .nouns import Step
from .taps import classifier


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """The linear layer that gives a network's answer. x: what that network was shown to find it."""

    network: nn.Module
    x: Tensor
    name: str
    layer: nn.Linear


def both_classifiers(probe: Step, *, what: str) -> tuple[Classifier, Classifier]:
    """Of the student, and of its first teacher.

    what: what a loss does with them, for errors. StageError: they are not there, or tell other classes apart.
    """
    teacher = next(iter(probe.models.values()), None)
    if probe.learner is None or teacher is None:
        raise StageError(f"it {what}, and this teacher tells only its answers")
    mine = _of(probe.learner, probe.batch.x)
    theirs = _of(teacher, probe.batch.x if probe.batch.teacher_x is None else probe.batch.teacher_x)
    counts = mine.layer.out_features, theirs.layer.out_features
    if counts[0] != counts[1]:
        raise StageError(f"the student tells {counts[0]} classes apart, the teacher {counts[1]}")
    return mine, theirs


def _of(network: nn.Module, x: Tensor) -> Classifier:
    name, layer = classifier(network, x)
    return Classifier(network=network, x=x, name=name, layer=layer)
