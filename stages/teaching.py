"""Train one network, with labels, with a teacher, or with both: what distillation and every recovery share."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .artifact import Context
from .compiling import compiled, reusable_passes
from .crew import Crew
from .crew import crew as meet
from .cutting import KeptExit
from .distill.nouns import Batch, Player
from .distill.players import Jury, company, names_of_peers
from .distill.robust import robust_logits
from .distill.samples import CHANNELS_LAST
from .distill.teachers import Chosen
from .evaluation import logits
from .lesson import Lesson
from .showing import Shown, show
from .splits import Split, thin
from .synthesis.against import is_made, lesson_without_data
from .synthesis.methods import METHODS
from .synthesis.trials import STARTS, Begun, best_game
from .synthesis.work import tries_of
from .training import Trained, fit

ATTACKED_IMAGES = 500  # of the validation images, when robust networks are compared: each costs a dozen passes


def teach(
    student: nn.Module,
    lesson: Lesson,
    context: Context,
    *,
    teacher: nn.Module | Chosen | None,
    known: Mapping[str, nn.Module] | None = None,
    augmented: bool = True,
    before_epoch: Callable[[int], None] = lambda epoch: None,
    evaluate: Callable[[], float] | None = None,
    full_precision: bool = False,
    peers: Sequence[nn.Module] = (),
    peers_may_win: bool = True,
    peer_lag: int = 0,
    are_crossed: bool = False,
    images: Split | None = None,
    keep_exit: KeptExit | None = None,
) -> tuple[Trained, dict[str, Any]]:
    """Train `student` in place and leave it on the CPU in its best epoch; returns the curves and some figures.

    teacher: who is imitated where the recipe names nobody; several by name are examined first, as those that a recipe
    names are. known: what the words `model` and `float` mean among them.
    The epoch is chosen on the validation images, in float32; on attacked ones where the training is under attack. Where
    images are made against the student it is the last that is not surely worse than the best (`alike`).
    full_precision: train in float32 whatever the recipe says. peers: networks of the student's architecture that learn
    beside it and from each other; the student ends as the best of them all, unless peers_may_win is false. peer_lag:
    they answer as they were up to so many updates ago. are_crossed: the one peer is given what teachers are shown; then
    the student stays itself.
    images: to train on in place of the data's. keep_exit: the exit that the student will end at; it is filled in, and
    epochs are chosen by it.
    Where images are made against the student, several starts of that game are tried and the best goes on.
    StageError: a loss needs something that is not there, such as a teacher.
    """
    lesson = context.data.task.lesson(lesson)
    if context.data.synthetic is not None:
        lesson = lesson_without_data(lesson, context.data, are_made=images is None, note=context.note)
    go = partial(
        _teach, lesson=lesson, teacher=teacher, known=known or {}, augmented=augmented, before_epoch=before_epoch,
        evaluate=evaluate, full_precision=full_precision, peers_may_win=peers_may_win, peer_lag=peer_lag,
        are_crossed=are_crossed, images=images,
    )  # fmt: skip
    starts, tried = (1, 0) if images is not None else _tries(lesson, context)
    facts: dict[str, Any] = {}
    if starts > 1:
        untouched = copy.deepcopy((student, tuple(peers), keep_exit))

        def begin(context: Context) -> Begun:
            student, peers, keep_exit = copy.deepcopy(untouched)
            _, shown, _ = go(student, context=context, peers=peers, keep_exit=keep_exit, until=tried)
            assert shown.made is not None, "images are made here"
            return shown.made.begun(student)

        context, facts[STARTS] = best_game(begin, context, starts=starts, epochs=tried, of=lesson.epochs, crew=meet())
    trained, _, figures = go(student, context=context, peers=peers, keep_exit=keep_exit)
    return trained, {**figures, **facts}


def alike(judges: int) -> float:
    """Points of agreement by which two epochs may differ by chance, where images are made against a student.

    Those that judge were made before there was a student, are few, and are not what it learns from: the best of many
    epochs on them is often an early one. So the last that is not surely worse is taken: 1.96 standard errors of the
    difference of two shares of so many images, at their widest.
    """
    return 196.0 * math.sqrt(0.5 / judges)


def _tries(lesson: Lesson, context: Context) -> tuple[int, int]:
    data = context.data
    if data.synthetic is None or not is_made(data):
        return 1, 0
    return tries_of(METHODS[data.synthetic.method], data.synthetic.settings, epochs=lesson.epochs)


def _teach(
    student: nn.Module,
    *,
    lesson: Lesson,
    context: Context,
    teacher: nn.Module | Chosen | None,
    known: Mapping[str, nn.Module],
    augmented: bool,
    before_epoch: Callable[[int], None],
    evaluate: Callable[[], float] | None,
    full_precision: bool,
    peers: Sequence[nn.Module],
    peers_may_win: bool,
    peer_lag: int,
    are_crossed: bool,
    images: Split | None,
    keep_exit: KeptExit | None,
    until: int | None = None,
) -> tuple[Trained, Shown, dict[str, float]]:
    """The same from one start. until: stop after so many epochs, in the last one's state."""
    crew = meet()
    networks = dict(zip(names_of_peers(1 + len(peers)), (student, *peers), strict=True))
    for network in networks.values():
        network.to(device=crew.device, memory_format=CHANNELS_LAST)  # type: ignore[call-overload]
    crossed = frozenset({"peer 2"}) if are_crossed else frozenset()
    shown = show(
        student, lesson, context, images=images, teacher=teacher, known=known, augmented=augmented,
        precision="fp32" if full_precision else context.training_precision, crossed=crossed, crew=crew,
    )  # fmt: skip
    players = _players(networks, lesson, context, shown, lag=peer_lag, crossed=crossed)
    kept: nn.Module = student if keep_exit is None else keep_exit.found(players[-1])
    is_alone = crossed or keep_exit is not None or not peers_may_win
    candidates = {"student": kept} if is_alone else networks
    jury = jury_for(candidates, lesson, context)
    several = len(candidates) > 1
    started = time.perf_counter()
    with _arranged(players, lesson, context, crew=crew, probe=shown.samples.probe()):
        trained = fit(
            kept, players, samples=shown.samples, epochs=lesson.epochs, seed=context.seed, evaluate=evaluate or jury,
            state=jury.state if several else None, figures=jury.series if several else dict,
            checkpoint=context.work / "training.safetensors", before_epoch=before_epoch, progress=context.progress,
            autocast=nullcontext if full_precision else _autocast(context, crew.device),
            accumulate=lesson.accumulate, balance=lesson.balance == "gradients", crew=crew, tracker=context.tracker,
            alike=alike(len(context.data.val)) if shown.made is not None else 0.0, until=until,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    kept.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    count = shown.images * (lesson.epochs - trained.resumed_at)
    rate = {"images_per_second": count / seconds if count else 0.0}
    return trained, shown, {**rate, **shown.figures(), **_at_best(trained, lesson)}


def _players(
    networks: Mapping[str, nn.Module],
    lesson: Lesson,
    context: Context,
    shown: Shown,
    *,
    lag: int,
    crossed: frozenset[str],
) -> Sequence[Player]:
    """Everybody who plays; the student, or its last peer, is the last. crossed: peers that see what teachers see."""
    students = company(
        networks,
        lesson,
        taught_by=shown.teachers.of,
        samples=shown.samples,
        steps=lesson.epochs * math.ceil(shown.batches / lesson.accumulate),  # updates
        seed=context.seed,
        lag=lag,
        shown_theirs=bool(crossed) or shown.to_all_alike,
        crossed=crossed,
    )
    return shown.joined(students)


def jury_for(networks: Mapping[str, nn.Module], lesson: Lesson, context: Context) -> Jury:
    """Who chooses the epoch: the task's figure on validation images, attacked ones where the lesson attacks."""
    data, attack, metric = context.data, lesson.attack, context.data.task.judge()

    def judge(answers: Tensor, labels: Tensor) -> float:
        return metric.value(answers.numpy(), labels.numpy())

    if attack is None:
        return Jury(networks=networks, answer=lambda one: logits(one, data.val, data.preprocessing), judge=judge)
    few = data.val.subset(thin(data.val.strata(), ATTACKED_IMAGES, seed=context.seed))
    return Jury(
        networks=networks,
        answer=lambda one: robust_logits(one, few, attack, data.preprocessing, seed=context.seed),
        judge=judge,
    )


def _at_best(trained: Trained, lesson: Lesson) -> dict[str, float]:
    """What else was measured of the epoch that is kept: nothing where that is the state before training."""
    wanted = {"ensemble_validation_accuracy": "ensemble validation"}
    if lesson.attack is not None:
        wanted["robust_validation_accuracy"] = "validation"
    curves, place = trained.curves, trained.best_epoch - 1
    return {name: curves[series][place] for name, series in wanted.items() if place >= 0 and series in curves}


@contextmanager
def _arranged(
    players: Sequence[Player], lesson: Lesson, context: Context, *, crew: Crew, probe: Batch
) -> Iterator[None]:
    """While they train, networks are compiled and their batch norms shared, where that is wished and works."""
    with ExitStack() as around:
        for player in players:
            around.enter_context(crew.joint_norms(player.module))
            if lesson.compile and player.module is player.learner:
                around.enter_context(compiled(player, probe, note=context.note))
        if lesson.compile:
            around.enter_context(reusable_passes())
        yield


def _autocast(context: Context, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    if context.training_precision == "fp32":
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
