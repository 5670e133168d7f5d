"""Stages that only train: the model on its labels, or the student with its teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from .artifact import Artifact, Context, Record
from .cutting import KeptExit
from .distill.players import another_start
from .distill.stage import Distill
from .distill.teachers import choose
from .evaluation import quality
from .lesson import Lesson
from .teaching import teach


def improve(artifact: Artifact, context: Context, *, stage: str, lesson: Lesson) -> Artifact:
    """Train what the stage trains; the teacher of a student is the original where the recipe names nobody."""
    changes: dict[str, Any] = {}
    start: dict[str, Any] = {}
    known = {"model": artifact.original.module, "float": artifact.module}
    if isinstance(lesson, Distill):
        if "student" in context.build:
            student = context.build["student"]()
            changes["base"] = "student"
            start = _inherited(student, lesson, context, known)
        else:
            student = copy.deepcopy(artifact.module)
        kept = None if lesson.keep_exit is None else KeptExit(number=lesson.keep_exit)
        trained, figures = teach(
            student,
            lesson,
            context,
            teacher=None if lesson.peers > 1 else {"model": artifact.module},  # peers learn from each other
            known=known,
            peers=[another_start(student, seed=context.seed + number) for number in range(1, lesson.peers)],
            peer_lag=lesson.peer_lag,
            are_crossed=lesson.peer_inputs == "crossed",
            images=context.data.transfer,
            keep_exit=kept,
        )
        if kept is not None:
            student, changes["cut"] = kept.cut()
    else:
        student = copy.deepcopy(artifact.module)
        trained, figures = teach(student, lesson, context, teacher=None, known=known)
    metrics: dict[str, Any] = {
        **start,
        **figures,
        "best_epoch": trained.best_epoch,
        "validation_accuracy": quality(student, context.data.val, context.data),
    }
    record = Record(stage=stage, settings=asdict(lesson), seconds=0.0, metrics=metrics, curves=trained.curves)
    return artifact.next(record=record, module=student.eval(), **changes)


def _inherited(student: nn.Module, lesson: Distill, context: Context, known: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Give the student a teacher's weights where the recipe says so; what is to be reported of it."""
    if context.student_from is None:
        return {}
    from .pruning import loss_of
    from .slimming.inherit import forebear, inherit_

    taught = choose(lesson, context, default={"model": known["float"]}, known=known)
    teacher = forebear(context.student_from, taught, known=known)
    context.progress.update(0.0, "choosing what the student takes over of its teacher")
    return {"inherited": inherit_(student, teacher, context, loss_of(context.data.task))}
