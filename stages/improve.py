"""Stages that only train: the model on its labels, or the student with its teacher."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

from torch import nn

from ..targets.errors import StageError
from .artifact import Artifact, Context, Record
from .evaluation import accuracy
from .lesson import Lesson
from .teaching import teach


def improve(artifact: Artifact, context: Context, *, stage: str, lesson: Lesson) -> Artifact:
    """Train what the stage trains; the teacher of a student is the original model as it is now."""
    changes: dict[str, Any] = {}
    teacher: nn.Module | None = None
    if stage == "distill":
        teacher = context.teacher or artifact.module
        if "student" in context.build:
            student = context.build["student"]()
            changes["base"] = "student"
        else:
            student = copy.deepcopy(artifact.module)
        _refuse_bad_teacher(teacher, student, context)
    else:
        student = copy.deepcopy(artifact.module)
    trained, figures = teach(student, lesson, context, teacher=teacher)
    metrics: dict[str, Any] = {
        **figures,
        "best_epoch": trained.best_epoch,
        "validation_accuracy": accuracy(student, context.data.val, context.data.preprocessing),
    }
    if teacher is not None:
        metrics["teacher_validation_accuracy"] = accuracy(teacher, context.data.val, context.data.preprocessing)
    record = Record(stage=stage, settings=asdict(lesson), seconds=0.0, metrics=metrics, curves=trained.curves)
    return artifact.next(record=record, module=student.eval(), **changes)


def _refuse_bad_teacher(teacher: nn.Module, student: nn.Module, context: Context) -> None:
    """A teacher that is worse than its student teaches mistakes: wrong weights or another preprocessing, usually."""
    validation = context.data.val
    taught = accuracy(teacher, validation, context.data.preprocessing)
    before = accuracy(student, validation, context.data.preprocessing)
    if taught < before:
        raise StageError(
            f"the teacher is right on {taught:.1f} % of the validation images and the untrained student on "
            f"{before:.1f} %. Check the model's weights, the order of its classes and data.mean and data.std."
        )
