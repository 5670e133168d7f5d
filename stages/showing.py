"""What a training is shown and who explains it: samples of the data, or ones that are made against the student."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ..targets.errors import StageError
from .artifact import Context
from .crew import Crew
from .distill.nouns import Lasting, Player, Samples
from .distill.robust import Attacked
from .distill.samples import Loaded, Swapped, second_of
from .distill.teachers import Chosen, Staff, staff
from .distill.wiring import needs_of
from .lesson import Lesson
from .splits import Split
from .synthesis.against import Made, is_made, make_against


@dataclass(frozen=True, kw_only=True)
class Shown:
    """samples: what students see. teachers: who explains it. batches, images: of an epoch.

    to_all_alike: teachers see the same. made: how the samples are made, where there are no data.
    """

    samples: Samples
    teachers: Staff
    batches: int
    images: int
    to_all_alike: bool
    made: Made | None = None

    def joined(self, students: Sequence[Player]) -> Sequence[Player]:
        """Everybody who plays, with whoever makes the samples."""
        return students if self.made is None else self.made.joined(students)

    def figures(self) -> dict[str, float]:
        """For the report."""
        return {**self.teachers.figures(), **({} if self.made is None else self.made.figures())}


def show(
    student: nn.Module,
    lesson: Lesson,
    context: Context,
    *,
    images: Split | None,
    teacher: nn.Module | Chosen | None,
    known: Mapping[str, nn.Module],
    augmented: bool,
    precision: str,
    crossed: frozenset[str],
    crew: Crew,
) -> Shown:
    """Samples for this student and its teachers; the arguments are those of `teach`.

    precision: that teachers compute in. crossed: students that see what teachers see. StageError: there are no images,
    or nobody who could teach with them.
    """
    split = _enough(context.data.train if images is None else images)
    is_made_for_it = images is None and is_made(context.data)
    teachers = staff(
        student,
        lesson,
        context,
        default=teacher,
        known=known,
        crew=crew,
        samples=None if is_made_for_it else _lasting(split, lesson, context, augmented=augmented),
        precision=precision,
    )
    if split.teacher_pixels is not None and teachers.has_own:
        raise StageError("ema, snapshot and previous are the student itself, and teachers are shown other samples here")
    if is_made_for_it:
        made = make_against(student, lesson, context, staff=teachers, crew=crew)
        samples: Samples = made.samples
        teachers, batches, count = made.staff, made.batches, made.images
    else:
        made, batch_size = None, min(lesson.batch_size, len(split))
        samples = _samples(split, lesson, context, batch_size=batch_size, crew=crew, augmented=augmented)
        batches, count = math.ceil(len(split) / batch_size), len(split)
    return Shown(
        samples=Swapped(samples, crossed) if crossed else samples,
        teachers=teachers,
        batches=batches,
        images=count,
        to_all_alike=split.teacher_pixels is None,
        made=made,
    )


def _enough(split: Split | None) -> Split:
    if split is None:
        raise StageError("there are no training images: give data with a train split, or set the epochs to 0")
    if len(split) < 2:
        raise StageError(f"{len(split)} training images are too few to train on")
    return split


def _lasting(split: Split, lesson: Lesson, context: Context, *, augmented: bool) -> Lasting | None:
    """What a cache knows the samples by; None where they differ from epoch to epoch, or are not the data's own."""
    data, variants = context.data, 1
    if split is not data.train:
        return None
    fingerprint = data.fingerprint
    if augmented and data.augment:
        if lesson.views is None:
            return None
        variants = lesson.views
        fingerprint += f"-{context.seed}-{'-'.join(data.augment)}"
    return Lasting(fingerprint=fingerprint, count=len(split), variants=variants)


def _samples(
    split: Split, lesson: Lesson, context: Context, *, batch_size: int, crew: Crew, augmented: bool
) -> Samples:
    """Batches of the split, with everything that the losses need, and attacked where the lesson says so."""
    data, needs = context.data, needs_of(lesson.losses())
    augmentation = data.augment if augmented else ()
    loaded = Loaded(
        split,
        data.preprocessing,
        batch_size=batch_size,
        seed=context.seed,
        crew=crew,
        augmentation=augmentation,
        variants=lesson.views,
        second=second_of(needs, split, augmentation) if lesson.attack is None else None,
    )
    if lesson.attack is None:
        return loaded
    return Attacked(loaded, lesson.attack, data.preprocessing, needs=needs)
