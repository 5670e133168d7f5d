"""Join losses to networks: find the taps, let each loss see the shapes once, refuse what cannot work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ...targets.errors import StageError
from .losses import make, term_class
from .nouns import Batch, Need, Objective, Out, Shape, Step, Teacher, Term, Weighted
from .response import refuse_other_classes
from .settings import Loss
from .taps import Outline, outline, resolve
from .watching import answer, still

LACKS: dict[Need, str] = {
    "labels": "labels, and these data have none: give it the weight 0, or add labels",
    "index": "the place of each sample in the data, and this source cannot tell it",
    "mask": "a mask of the positions that count, and these data have none",
    "teacher": "a teacher, and there is none: set its weight to 0, or name a teacher",
    "teachers": "at least two teachers",
    "view": "a second view of each image, and these samples have none",
    "classmate": "another image of the same class, and these samples have none",
}


def needs_of(losses: Mapping[str, Loss]) -> frozenset[Need]:
    """Everything that these losses need together; samples are made to have it."""
    return frozenset().union(*(term_class(name).needs for name in losses))


def wire(
    losses: Mapping[str, Loss],
    *,
    learner: nn.Module,
    teachers: Mapping[str, Teacher],
    probe: Batch,
    seed: int = 0,
    made_by: Callable[[str, Mapping[str, Any]], Term] = make,
) -> Objective:
    """The objective that these losses make for this student and these teachers.

    probe: a few samples on the device that trains. seed: of what the losses create. made_by: makes a term of a name and
    its options. StageError: a loss needs what is not there, a tap does not exist, shapes cannot be joined.
    """
    parts = [part for name, loss in losses.items() for part in _parts(name, loss, teachers, made_by)]
    outlines: dict[int, Outline] = {}
    for part in parts:
        _refuse_lack(part.name, part.term, teachers, probe)
        _find_taps(part, losses[part.name.partition("@")[0]], learner, teachers, probe, outlines)
    objective = Objective(parts).to(probe.x.device)
    _tap_teachers(parts, teachers)
    step = _look(learner, teachers, objective.taps(), probe)
    for part in objective.parts:
        with _told_of(part):
            _refuse_other_classes(part, step)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in objective.parts:
            with _told_of(part):
                part.term.build(_seen_by(part, step))
    return objective.to(probe.x.device)


def _parts(
    name: str, loss: Loss, teachers: Mapping[str, Teacher], made_by: Callable[[str, Mapping[str, Any]], Term]
) -> list[Weighted]:
    """One term; or one for each teacher, where there are several and the term looks at one at a time."""
    one = Weighted(name=name, term=made_by(name, loss.options), weight=loss.weight, ramp=loss.ramp)
    if len(teachers) < 2 or one.term.every_teacher or "teacher" not in one.term.needs:
        return [one]
    return [
        replace(one, name=f"{name}@{teacher}", term=made_by(name, loss.options), teacher=teacher)
        for teacher in teachers
    ]


def _refuse_lack(name: str, term: Term, teachers: Mapping[str, Teacher], probe: Batch) -> None:
    there: set[Need] = {"models"}
    there |= {"view", "classmate"} if probe.view is not None else set()
    there |= {"labels"} if probe.y is not None else set()
    there |= {"index"} if probe.index is not None else set()
    there |= {"mask"} if probe.mask is not None else set()
    there |= {"teacher"} if teachers else set()
    there |= {"teachers"} if len(teachers) > 1 else set()
    for need in sorted(term.needs - there):
        raise StageError(f"the loss {name} needs {LACKS[need]}")


def _refuse_other_classes(part: Weighted, step: Step) -> None:
    """A loss that compares answers class by class cannot compare those of networks with different classes."""
    term = part.term
    any_classes = term.place is not None if term.any_classes is None else term.any_classes
    if any_classes or not term.needs & {"teacher", "teachers"}:
        return
    for name, said in _seen_by(part, step).teachers.items():
        refuse_other_classes(step.student.logits, said.logits, name=name)


def _seen_by(part: Weighted, step: Step) -> Step:
    return step if part.teacher is None else step.only(part.teacher)


@contextmanager
def _told_of(part: Weighted) -> Iterator[None]:
    """An error in the block names the loss."""
    try:
        yield
    except StageError as error:
        said = str(error)
        raise StageError(said if said.startswith("the loss ") else f"the loss {part.name}: {said}") from None


def _find_taps(
    part: Weighted,
    loss: Loss,
    learner: nn.Module,
    teachers: Mapping[str, Teacher],
    probe: Batch,
    outlines: dict[int, Outline],
) -> None:
    """Set the term's pairs. outlines: of networks that were looked at before, by id."""
    wanted = loss.taps if loss.taps is not None else part.term.place
    if wanted is None:
        return
    teacher = None
    if "teacher" in part.term.needs:
        teacher = teachers[part.teacher] if part.teacher else next(iter(teachers.values()))
        if teacher.module is None:
            raise StageError(f"the loss {part.name} looks into its teacher, and this one tells only its answers")
    x = probe.x if probe.teacher_x is None else probe.teacher_x
    looked = None if part.term.of_teacher else learner
    for module, given in ((looked, probe.x), (None if teacher is None else teacher.module, x)):
        if module is not None and id(module) not in outlines:
            outlines[id(module)] = outline(module, given)
    mine = None if looked is None else outlines[id(looked)]
    theirs = None if teacher is None else outlines[id(teacher.module)]
    found = resolve(wanted, student=mine, teacher=theirs, loss=part.name)
    part.term.pairs = tuple(part.term.narrowed(pair, _shape(pair[0], mine), _shape(pair[1], theirs)) for pair in found)


def _shape(tap: str, found: Outline | None) -> Shape | None:
    return next((one.shape for one in found or () if one.name == tap), None)


def _tap_teachers(parts: list[Weighted], teachers: Mapping[str, Teacher]) -> None:
    for name, teacher in teachers.items():
        mine = [part for part in parts if part.teacher in (None, name) and "teacher" in part.term.needs]
        teacher.taps = tuple(dict.fromkeys(theirs for part in mine for _, theirs in part.term.pairs))


def _look(learner: nn.Module, teachers: Mapping[str, Teacher], taps: tuple[str, ...], probe: Batch) -> Step:
    """One pass without a trace: no gradient, no batch statistics, no random number used up."""
    with still(learner):
        student: Out = answer(learner, probe.x, taps)
        if probe.view is not None:
            student = replace(student, view=answer(learner, probe.view, taps))
        answers = {name: teacher.see(probe) for name, teacher in teachers.items()}
    models = {name: teacher.module for name, teacher in teachers.items() if teacher.module is not None}
    return Step(batch=probe, student=student, teachers=answers, progress=0.0, learner=learner, models=models)
