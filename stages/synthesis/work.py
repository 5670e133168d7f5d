"""How much there is to compute before images are made, and while a student learns from them: an estimate to tell."""

from __future__ import annotations

from dataclasses import dataclass

from .generators import macs, width_for
from .methods import Method
from .settings import Synthesis

# Passes for which a network counts: forwards and back to its input; the weights' gradients are a third as much again.
THROUGH, LEARNING = 2, 3
FEW_OF_A_CLASS = (
    16  # the usual 2048 images are 20 of each of 100 classes, the most that small images were published with
)


TRIED = 0.1  # of a student's epochs: for so long each start is tried
FEWEST = 5  # epochs, below which an epoch for each start would be too much of the time


@dataclass(frozen=True, kw_only=True)
class Work:
    """Multiply-accumulates. pool: of making the images before the first stage. epoch: of a student's epoch."""

    pool: int
    epoch: int


def work_of(
    method: Method,
    settings: Synthesis,
    *,
    shape: tuple[int, int, int],
    teacher_macs: int,
    student_macs: int,
    batch_size: int,
    there: int | None = None,
) -> Work:
    """What this method computes. *_macs: of one image forwards. batch_size: of the student, where there is a pool.

    there: images that need not be made; None: all must.
    """
    first, pool = method.first, 0
    images = there or settings.images or first.images
    if there is None:
        starts = settings.restarts if first.play in ("turns", "pool") else 1
        batches = first.warm_up * starts + -(-images // (settings.batch or first.batch))
        pool = batches * _batch(first, settings, shape=shape, seen_macs=teacher_macs, teacher_macs=teacher_macs)
    seen = teacher_macs + LEARNING * student_macs
    if not method.grows:
        return Work(pool=pool, epoch=int(0.8 * images) * seen)
    made = _batch(method, settings, shape=shape, seen_macs=teacher_macs + student_macs, teacher_macs=teacher_macs)
    rounds = settings.rounds or method.rounds
    if method.play != "turns":
        return Work(pool=pool, epoch=made + rounds * batch_size * seen)
    batch = settings.batch or method.batch
    reuse = method.reuse if settings.reuse is None else settings.reuse
    drawn = 0 if reuse else _generator_macs(settings, method, shape=shape, teacher_macs=teacher_macs)
    looked = teacher_macs if not reuse else teacher_macs // method.learns
    turn = batch * method.learns * (drawn + looked + LEARNING * student_macs)
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


def _batch(
    method: Method, settings: Synthesis, *, shape: tuple[int, int, int], seen_macs: int, teacher_macs: int
) -> int:
    """Of one batch: its steps, each through whoever sees it."""
    if method.play == "noise":
        return 0
    made = 0
    if method.play != "pixels":
        made = LEARNING * _generator_macs(settings, method, shape=shape, teacher_macs=teacher_macs)
    steps, batch = settings.steps or method.steps, settings.batch or method.batch
    return steps * batch * (made + THROUGH * seen_macs)


def _generator_macs(settings: Synthesis, method: Method, *, shape: tuple[int, int, int], teacher_macs: int) -> int:
    width = settings.width or width_for(teacher_macs, shape)
    return macs(shape, width=width, latent=settings.latent or method.latent)
