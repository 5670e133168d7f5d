"""Look at the teachers before they teach: are they any good, and do they mean the same classes?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...targets.errors import StageError
from ..contract import Preprocessing, Tokens
from ..evaluation import logits
from ..paired import teachers_preprocessing
from ..splits import Split, thin

if TYPE_CHECKING:
    from ..data import Data

SLICE = 2000  # validation images: a standard error of at most 1.1 points
SURE = 2.0  # standard errors: less than that could be chance
GAIN = 10.0  # points that another order of the classes must bring before it is called the right one
NAMED_PAIRS = 4

Whole = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A network's answers to the slice. figure: the task's, in per cent. classes: how many it tells apart."""

    figure: float
    classes: int
    said: Whole
    labels: Whole


def examine(
    teachers: Mapping[str, nn.Module], student: nn.Module, data: Data, *, refuse: bool = True
) -> dict[str, float]:
    """Each teacher's figure and the student's as it is now, on at most 2000 validation images.

    A teacher with other classes than the student's is not judged. refuse: False only looks.
    StageError: a teacher is below its student by more than chance explains, or its classes stand in another order.
    """
    if not data.val.is_labelled:
        return {}
    few = data.val.subset(thin(data.val.labels(), SLICE, seed=0)) if data.task.has_one_class_each else _first(data.val)
    pupil = _look(student, few, data, data.preprocessing)
    metrics: dict[str, float] = {"student_before": round(pupil.figure, 3)}
    for name, teacher in teachers.items():
        seen = _look(teacher, few.for_teacher(), data, teachers_preprocessing(few, data.preprocessing))
        if seen.classes != pupil.classes:
            continue
        metrics[f"teacher_{name}"] = round(seen.figure, 3)
        if refuse:
            _refuse_other_order(name, seen, data)
            _refuse_worse(name, seen, pupil, data)
    return metrics


def rearranged(said: Whole, labels: Whole, *, classes: int) -> tuple[float, Whole]:
    """How often the answers are right in the order of classes that fits best, in per cent, and that order.

    The order is found on every other sample and judged on the rest: with few samples of each class some order always
    fits those that it was chosen by. order[i]: what the class i of the answers is in the labels.
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (said[::2], labels[::2]), 1)
    _, order = linear_sum_assignment(counts, maximize=True)
    return 100 * float((order[said[1::2]] == labels[1::2]).mean()), order


def _first(split: Split) -> Split:
    return split.subset(torch.arange(min(SLICE, len(split))))


def _look(module: nn.Module, split: Split, data: Data, preprocessing: Preprocessing | Tokens) -> _Seen:
    answers, labels = logits(module, split, preprocessing)
    axis = 1 if answers.ndim in (2, 4) else -1
    said = answers.argmax(dim=axis).numpy()
    classes = answers.shape[axis]
    judged = data.task.name == "regression" or classes > int(labels.max())
    figure = data.task.judge().value(answers.numpy(), labels.numpy()) if judged else float("nan")
    return _Seen(figure=figure, classes=classes, said=said, labels=labels.numpy())


def _refuse_worse(name: str, teacher: _Seen, student: _Seen, data: Data) -> None:
    """A teacher that is worse than its student teaches mistakes: wrong weights or another preprocessing, usually."""
    if teacher.figure >= student.figure:
        return
    if data.task.has_one_class_each:
        lost = int(((student.said == student.labels) & (teacher.said != teacher.labels)).sum())
        gained = int(((teacher.said == teacher.labels) & (student.said != student.labels)).sum())
        if lost - gained <= SURE * (lost + gained) ** 0.5:
            return
    raise StageError(
        f"the teacher {name} reaches {teacher.figure:.1f} % on {len(teacher.labels)} validation {data.task.samples} "
        f"and the untrained student {student.figure:.1f} % ({data.task.metric}). Check the teacher's weights, the "
        "order of its classes, and data.mean and data.std; to be taught by it all the same set check_teacher: false."
    )


def _refuse_other_order(name: str, teacher: _Seen, data: Data) -> None:
    """Labels in another order are the usual reason for a good network to look like a random one."""
    if not data.task.has_one_class_each or len(teacher.labels) < 2:
        return
    half = teacher.labels[1::2]
    now = 100 * float((teacher.said[1::2] == half).mean())
    best, order = rearranged(teacher.said, teacher.labels, classes=teacher.classes)
    noise = 100 * (best / 100 * (1 - best / 100) / len(half)) ** 0.5
    if best - now < max(GAIN, 2 * SURE * noise):
        return
    wrong = [place for place, meant in enumerate(order.tolist()) if place != meant]
    names = [f"its {place} is {order[place]} here ({data.classes[order[place]]})" for place in wrong[:NAMED_PAIRS]]
    more = f" and {len(wrong) - NAMED_PAIRS} more" if len(wrong) > NAMED_PAIRS else ""
    raise StageError(
        f"the teacher {name} has its classes in another order: it is right on {now:.1f} % of the validation "
        f"{data.task.samples}, and on {best:.1f} % if {', '.join(names)}{more}. Give the data's classes in the "
        "teacher's order, or a function that rearranges its last layer; to be taught by it as it is set "
        "check_teacher: false."
    )
