"""How much there is to compute before images are made, and while a student learns from them: an estimate to tell."""

from __future__ import annotations

from dataclasses import dataclass

from .methods import Method
from .settings import Synthesis

# Passes for which a network counts: forwards and back to its input; its weights' gradients are another.
THROUGH, LEARNING = 2, 3
FEW_OF_A_CLASS = (
    16  # the usual 2048 images are 20 of each of 100 classes, the most that small images were published with
)


TRIED = 0.1  # of a student's epochs: for so long each start is tried
FEWEST = 5  # epochs, below which an epoch for each start would be too much of the time


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one image forwards through each network, in one unit."""

    teacher: float
    student: float
    generator: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """In the unit of the costs. pool: of making the images before the first stage. epoch: of a student's epoch."""

    pool: float
    epoch: float


def work_of(
    method: Method,
    settings: Synthesis,
    *,
    costs: Costs,
    batch_size: int,
    there: int | None = None,
) -> Work:
    """What this method computes. batch_size: of the student, where there is a pool.

    there: images that need not be made; None: all must.
    """
    first, pool = method.first, 0.0
    images = there or settings.images or first.images
    if there is None:
        starts = settings.restarts if first.play in ("turns", "pool") else 1
        batches = first.warm_up * starts + -(-images // (settings.batch or first.batch))
        pool = batches * _batch(first, settings, costs, seen_by=costs.teacher)
    seen = costs.teacher + LEARNING * costs.student
    if not method.grows:
        return Work(pool=pool, epoch=int(0.8 * images) * seen)
    made = _batch(method, settings, costs, seen_by=costs.teacher + costs.student)
    rounds = settings.rounds or method.rounds
    if method.play != "turns":
        return Work(pool=pool, epoch=made + rounds * batch_size * seen)
    batch = settings.batch or method.batch
    reuse = method.reuse if settings.reuse is None else settings.reuse
    drawn = 0.0 if reuse else costs.generator
    looked = costs.teacher / method.learns if reuse else costs.teacher
    turn = batch * method.learns * (drawn + looked + LEARNING * costs.student)
    return Work(pool=pool, epoch=rounds * (made + turn))


def tries_of(method: Method, settings: Synthesis, *, epochs: int) -> tuple[int, int]:
    """How many starts of a game with a student are tried, and for how many of its epochs each; one: none is tried."""
    if not method.grows or method.play not in ("turns", "pool") or epochs < FEWEST or settings.restarts < 2:
        return 1, 0
    return settings.restarts, max(1, round(TRIED * epochs))


def updates_of(method: Method, settings: Synthesis, *, images: int, batch_size: int) -> int:
    """Steps that a student takes in an epoch. images: that there are to learn from before it begins."""
    if not method.grows:
        return -(-images // batch_size)
    return (settings.rounds or method.rounds) * (method.learns if method.play == "turns" else 1)


def too_few(images: int, *, classes: int) -> str | None:
    """What somebody should know whose images are few for their classes, before a student learns; None: they are not."""
    if images >= FEW_OF_A_CLASS * classes:
        return None
    return (
        f"{images} images for {classes} classes are {images / classes:.2g} of each, which is little to learn from: "
        f"data.synthesis.images {FEW_OF_A_CLASS * classes} would make {FEW_OF_A_CLASS}"
    )


def _batch(method: Method, settings: Synthesis, costs: Costs, *, seen_by: float) -> float:
    """Of one batch: its steps, each through whoever sees it."""
    if method.play == "noise":
        return 0.0
    made = 0.0 if method.play == "pixels" else LEARNING * costs.generator
    steps, batch = settings.steps or method.steps, settings.batch or method.batch
    return steps * batch * (made + THROUGH * seen_by)
