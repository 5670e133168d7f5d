"""A student without data: samples that are made against it as it learns, and the generator that plays before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...targets.errors import StageError
from ..contract import Preprocessing
from ..distill.nouns import Player, Samples, Teacher
from ..distill.samples import second_of
from ..distill.wiring import needs_of
from ..lesson import CLIP_NORM, Lesson
from .filling import state_beside
from .generating import ByGenerator
from .makers import maker_for
from .methods import METHODS
from .order import Order
from .pool import Pool
from .priors import wire_priors
from .sources import Generated, Pooled
from .through import Once, Through
from .trials import Begun

if TYPE_CHECKING:
    from ..artifact import Context
    from ..crew import Crew
    from ..data import Data
    from ..distill.teachers import Staff

LAST_RATE = 0.01  # of a generator, as a share of the first


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a training sees where there are no data.

    staff: the teachers; those that see one batch several times compute its answers once. batches, images: of an epoch,
    for each student. learns: steps of a student in a round.
    """

    samples: Generated | Pooled
    staff: Staff
    batches: int
    images: int
    learns: int
    generator: Player | None
    teacher: nn.Module  # whom the images please

    def joined(self, students: Sequence[Player]) -> list[Player]:
        """Everybody who plays: the generator first."""
        for player in students:
            if player.module is player.learner:
                player.steps = self.learns
        return [*students] if self.generator is None else [self.generator, *students]

    def begun(self, student: nn.Module) -> Begun:
        """How far the game has come with this student."""
        images = self.samples.newest()
        if images.is_floating_point():
            images = (255 * images).round().to(torch.uint8)
        return Begun(student=student, teacher=self.teacher, images=images.cpu())

    def figures(self) -> dict[str, float]:
        """For the report."""
        found = {"generator_restarts": float(self.samples.watch.restarts)}
        if isinstance(self.samples, Pooled):
            found["making_seconds"] = self.samples.seconds
        score = self.samples.score()
        if score is None:
            return found
        found["generator_score"] = score.total
        return found if score.disagreement is None else {**found, "disagreement_left": score.disagreement}


def is_made(data: Data) -> bool:
    """Whether images are made while a student learns; else it learns from those that there are."""
    found = data.synthetic
    return found is not None and found.method in METHODS and METHODS[found.method].grows


def make_against(student: nn.Module, lesson: Lesson, context: Context, *, staff: Staff, crew: Crew) -> Made:
    """Samples that are made against this student, and the generator that plays before it.

    StageError: something in the lesson needs images that stay, or there is no teacher.
    """
    teacher = _teacher(lesson, staff)
    order = order_for(context.data, seed=context.seed, device=crew.device)
    updates = math.ceil(lesson.epochs * order.rounds * order.steps / lesson.accumulate)
    if order.method.play == "turns":
        return _in_turns(student, order, staff=staff, teacher=teacher, crew=crew, updates=updates, note=context.note)
    if crew.count > 1:
        raise StageError(
            f"{order.method.name} keeps its images in one pool, and {crew.count} processes train here: use one, or the "
            "method dfad (data.synthesis.method)"
        )
    return _from_pool(student, order, lesson, context, staff=staff, teacher=teacher, crew=crew)


def lesson_without_data(lesson: Lesson, data: Data, *, are_made: bool, note: Callable[[str], None]) -> Lesson:
    """The lesson without the loss of the labels, which are the teacher's own answers.

    are_made: images are made while the student learns, and where the lesson leaves its losses to ce and kd, the
    method may have one that suits the game better. StageError: nothing is left to learn from.
    """
    assert data.synthetic is not None, "data of the task have labels"
    losses = lesson.losses()
    kept = {name: loss for name, loss in losses.items() if name != "ce"}
    if not kept and lesson.epochs:
        raise StageError(
            "it learns from labels alone, and without data there are none: leave the stage out, or give it a teacher "
            "and kd a weight"
        )
    method = METHODS.get(data.synthetic.method)
    if are_made and method is not None and method.imitate and lesson.loss is None:
        note(f"the student learns by {', '.join(method.imitate)}, as {method.name} has it; `loss` names another")
        return replace(lesson, loss=dict(method.imitate))
    if len(kept) == len(losses):
        return lesson
    note("ce is left out: without data a label would be what the teacher answers, which kd imitates in full")
    return replace(lesson, loss=kept)


def order_for(data: Data, *, seed: int, device: torch.device) -> Order:
    """What these data were made by, for a student."""
    assert data.synthetic is not None, "data of the task are not made"
    assert isinstance(data.preprocessing, Preprocessing), "images are made, and no texts"
    return Order(
        method=METHODS[data.synthetic.method],
        settings=data.synthetic.settings,
        classes=len(data.classes),
        preprocessing=data.preprocessing,
        seed=seed,
        device=device,
        augmentation=data.augment,
    )


def _in_turns(
    student: nn.Module,
    order: Order,
    *,
    staff: Staff,
    teacher: nn.Module,
    crew: Crew,
    updates: int,
    note: Callable[[str], None],
) -> Made:
    generator = order.generator(teacher)
    samples = Generated(generator, order, teacher=teacher, crew=crew, note=note)
    learns = order.method.learns
    player = _generator_player(generator, order, samples=samples, teacher=teacher, student=student, updates=updates)
    samples.played_by(player)
    if samples.reuses and learns > 1:
        staff = replace(staff, hired={name: Once(one) for name, one in staff.hired.items()})
    batches = order.rounds * learns
    images = order.batch * (order.rounds if samples.reuses else batches)
    return Made(
        samples=samples, staff=staff, batches=batches, images=images, learns=learns, generator=player, teacher=teacher
    )


def _generator_player(
    generator: nn.Module, order: Order, *, samples: Samples, teacher: nn.Module, student: nn.Module, updates: int
) -> Player:
    """It plays before the student, and looks at it and at a teacher that lets gradients through."""
    teachers: Mapping[str, Teacher] = {"teacher": Through(teacher)}
    losses = order.losses(teacher, is_alone=False)
    objective = wire_priors(losses, learner=student, teachers=teachers, probe=samples.probe(), seed=order.seed)
    optimizer = torch.optim.Adam(generator.parameters(), lr=order.method.lr, betas=order.method.betas)
    return Player(
        name="generator",
        module=generator,
        learner=student,
        objective=objective,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, _falling(updates)),
        teachers=teachers,
        steps=order.steps,
        clip_norm=CLIP_NORM,
    )


def _falling(steps: int) -> Callable[[int], float]:
    """The share of the first rate at each step: a cosine."""

    def factor(step: int) -> float:
        gone = min(1.0, step / max(1, steps))
        return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * gone)) / 2

    return factor


def _from_pool(
    student: nn.Module,
    order: Order,
    lesson: Lesson,
    context: Context,
    *,
    staff: Staff,
    teacher: nn.Module,
    crew: Crew,
) -> Made:
    data = context.data
    assert data.synthetic is not None, "data of the task are not made"
    assert data.train is not None, "a pool has images to learn from"
    maker = maker_for(order, teacher=teacher, student=student)
    if isinstance(maker, ByGenerator):
        maker.start_from(state_beside(data.synthetic.pool))
    pool = Pool(
        context.work / "pool",
        shape=order.shape,
        teacher=data.synthetic.teacher,
        limit_mb=order.settings.pool_mb,
        settings={"method": order.method.name},
        note=context.note,
    )
    samples = Pooled(
        data.train,
        maker,
        pool,
        order=order,
        teacher=teacher,
        student=student,
        batch_size=lesson.batch_size,
        crew=crew,
        note=context.note,
        second=second_of(needs_of(lesson.losses()), data.train, order.augmentation),
    )
    rounds = order.rounds
    return Made(
        samples=samples, staff=staff, batches=rounds, images=rounds * lesson.batch_size, learns=1, generator=None,
        teacher=teacher,
    )  # fmt: skip


def _teacher(lesson: Lesson, staff: Staff) -> nn.Module:
    """Whom images are made to please: the first that is a network of its own."""
    if lesson.attack is not None:
        raise StageError("attack changes images that are there, and without data they are made for each step: drop it")
    for one in staff.hired.values():
        if one.module is not None:
            return one.module
    raise StageError("without data images are made from a teacher, and there is none: name one, or give data")
