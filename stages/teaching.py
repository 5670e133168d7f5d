"""Train one network, with labels, with a teacher, or with both: what distillation and every recovery share."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..targets.errors import StageError
from .artifact import Context
from .augment import augment
from .data import loader
from .distill.nouns import Player, Teacher
from .distill.sources import Frozen, Loaded
from .distill.wiring import wire
from .evaluation import accuracy
from .lesson import Lesson
from .training import Trained, fit

WARMUP_SHARE = 0.1  # of all steps: the learning rate rises from a twentieth, then falls as a cosine to a hundredth
CHANNELS_LAST = torch.channels_last  # a fifth faster in float32 on CPUs, half as fast again in bfloat16
CLIP_NORM = 5.0  # a rare bad batch must not undo an epoch; ordinary gradients stay below


def teach(
    student: nn.Module,
    lesson: Lesson,
    context: Context,
    *,
    teacher: nn.Module | None,
    augmented: bool = True,
    before_epoch: Callable[[int], None] = lambda epoch: None,
    evaluate: Callable[[], float] | None = None,
    full_precision: bool = False,
) -> tuple[Trained, dict[str, float]]:
    """Train `student` in place and leave it on the CPU in its best epoch; returns the curves and some figures.

    The epoch is chosen on the validation images, in float32. full_precision: train in float32 whatever the recipe
    says. StageError: a loss needs something that is not there, such as a teacher.
    """
    split = context.data.train
    if split is None:
        raise StageError("there are no training images: give data with a train split, or set the epochs to 0")
    if len(split) < 2:
        raise StageError(f"{len(split)} training images are too few to train on")
    accelerator = Accelerator()
    student.to(memory_format=CHANNELS_LAST)  # type: ignore[call-overload]
    batch_size = min(lesson.batch_size, len(split))
    rounds = math.ceil(len(split) / batch_size)
    teachers: dict[str, Teacher] = {}
    if teacher is not None:
        teachers["teacher"] = Frozen(copy.deepcopy(teacher).to(memory_format=CHANNELS_LAST))  # type: ignore[call-overload]
        teachers["teacher"].to(accelerator.device)
    student.to(accelerator.device)
    samples = _samples(context, batch_size, accelerator.device, augmented=augmented)
    objective = wire(lesson.losses(), learner=student, teachers=teachers, probe=samples.probe())
    optimizer = optimizer_for(lesson, [*student.parameters(), *objective.learned()])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(lesson.epochs * rounds))
    student, optimizer = accelerator.prepare(student, optimizer)
    player = Player(
        name="student",
        module=student,
        learner=student,
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        teachers=teachers if any("teacher" in part.term.needs for part in objective.parts) else {},
        clip_norm=CLIP_NORM,
    )
    started = time.perf_counter()
    trained = fit(
        student,
        [player],
        samples=samples,
        epochs=lesson.epochs,
        seed=context.seed,
        evaluate=evaluate or (lambda: accuracy(student, context.data.val, context.data.preprocessing)),
        checkpoint=context.work / "training.safetensors",
        before_epoch=before_epoch,
        progress=context.progress,
        backward=accelerator.backward,
        autocast=nullcontext if full_precision else _autocast(context, accelerator.device),
    )
    seconds = time.perf_counter() - started
    student.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images = len(split) * (lesson.epochs - trained.resumed_at)
    return trained, {"images_per_second": images / seconds if images else 0.0}


def _autocast(context: Context, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    if context.training_precision == "fp32":
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16)


def optimizer_for(lesson: Lesson, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Weight decay reaches only matrices and kernels: it has no business on a bias, a norm or a scale."""
    wide = [parameter for parameter in parameters if parameter.ndim > 1]
    narrow = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": wide, "weight_decay": lesson.weight_decay},
        {"params": narrow, "weight_decay": 0.0},
    ]
    if lesson.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lesson.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=lesson.lr)


def warm_cosine(steps: int) -> Callable[[int], float]:
    """The share of the peak learning rate at each of `steps` steps."""
    warm = max(1, round(steps * WARMUP_SHARE))

    def factor(step: int) -> float:
        if step < warm:
            return 0.05 + 0.95 * step / warm
        angle = math.pi * min(1.0, (step - warm) / max(1, steps - warm))
        return 0.01 + 0.99 * (1 + math.cos(angle)) / 2

    return factor


def _samples(context: Context, batch_size: int, device: torch.device, *, augmented: bool) -> Loaded:
    data = context.data
    assert data.train is not None
    split = data.train

    def open_epoch(epoch: int) -> tuple[int, Iterator[tuple[Tensor, Tensor, Tensor]]]:
        batches = loader(split, batch_size=batch_size, shuffle=True, seed=context.seed, epoch=epoch)
        return len(batches), iter(batches)

    def prepare(images: Tensor, epoch: int, index: int) -> Tensor:
        if augmented and data.augment:
            generator = torch.Generator().manual_seed(context.seed * 7_368_787 + epoch * 100_003 + index)
            images = augment(images, data.augment, generator)
        return data.preprocessing.normalize(images).contiguous(memory_format=CHANNELS_LAST)

    return Loaded(open_epoch, prepare=prepare, device=device)
