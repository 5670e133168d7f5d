"""The one training loop: players take turns on samples, teachers answer, every epoch is saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..targets.errors import StageError
from .distill.nouns import Batch, Player, Samples, Step, Teacher
from .distill.watching import answer
from .progress import Progress, Quiet
from .tensors import CorruptStateError, load_state, save_state

Backward = Callable[[Tensor], None]
Autocast = Callable[[], AbstractContextManager[object]]
Curves = dict[str, list[float]]


@dataclass(kw_only=True)
class Trained:
    """What training left behind. curves: one value for each epoch, by series."""

    curves: Curves = field(default_factory=dict)
    best_epoch: int = 0  # 1 is the first; 0 is the state before training
    resumed_at: int = 0  # epochs that an earlier run had finished


def fit(
    student: nn.Module,
    players: Sequence[Player],
    *,
    samples: Samples,
    epochs: int,
    seed: int,
    evaluate: Callable[[], float],
    checkpoint: Path | None = None,
    before_epoch: Callable[[int], None] = lambda epoch: None,
    progress: Progress | None = None,
    backward: Backward = lambda loss: loss.backward(),  # type: ignore[no-untyped-call]
    autocast: Autocast = nullcontext,
) -> Trained:
    """Play `epochs` epochs of rounds and leave the student in the state of its best one.

    evaluate: the figure to choose epochs by, higher is better; the later of two equals wins. checkpoint: a file;
    training goes on from what it holds. before_epoch: called with 0, 1, ...; switches what a schedule switches.
    autocast: opens a block in which networks run in lower precision; losses are always computed in float32.
    Everything random depends on the seed and the epoch, so a resumed run ends as an uninterrupted one.

    StageError: a loss or a figure is not finite. The file then still holds the last good epoch.
    """
    progress = progress or Quiet()
    trained, best = _resume(student, players, checkpoint)
    if best is None:
        best = (evaluate(), _state_of(student))
    for epoch in range(trained.resumed_at, epochs):
        torch.manual_seed(_mix(seed, epoch))
        before_epoch(epoch)
        losses = _play_epoch(players, samples, epoch, epochs, progress, backward, autocast)
        for teacher in _teachers(players):
            teacher.after(epoch)
        for player in players:
            player.objective.settle(player.learner)
        figure = evaluate()
        for name, value in {**losses, "validation": figure}.items():
            trained.curves.setdefault(name, []).append(value)
        if figure >= best[0]:
            best = (figure, _state_of(student))
            trained.best_epoch = epoch + 1
        if checkpoint is not None:
            save_state(_checkpoint(epoch + 1, players, trained, best), checkpoint)
    student.load_state_dict(best[1])
    student.eval()
    return trained


def _play_epoch(
    players: Sequence[Player],
    samples: Samples,
    epoch: int,
    epochs: int,
    progress: Progress,
    backward: Backward,
    autocast: Autocast,
) -> dict[str, float]:
    """Play one epoch; returns each term's mean, by name."""
    rounds = samples.begin(epoch)
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for index in range(rounds):
        gone = epoch + index / rounds
        for player in players:
            for _ in range(player.steps):
                batch = samples.next(player)
                with _active(player, players):
                    with autocast():
                        step = see(player, batch, progress=gone / epochs, epoch=gone)
                    total, values = player.objective(step)
                    _refuse_nonfinite(total, values, epoch=epoch, index=index)
                    player.optimizer.zero_grad(set_to_none=True)
                    backward(total)
                    if player.clip_norm is not None:
                        nn.utils.clip_grad_norm_(player.module.parameters(), player.clip_norm)
                    player.optimizer.step()
                    player.schedule.step()
                for teacher in player.teachers.values():
                    teacher.stepped()
                for name, value in values.items():
                    key = name if len(players) == 1 else f"{player.name} {name}"
                    sums[key] = sums.get(key, 0.0) + float(value.detach())
                    counts[key] = counts.get(key, 0) + 1
        if index % 8 == 0 or index == rounds - 1:
            losses = "  ".join(f"{name} {sums[name] / counts[name]:.3f}" for name in sums)
            progress.update((epoch + (index + 1) / rounds) / epochs, f"epoch {epoch + 1}/{epochs}  {losses}")
    return {name: sums[name] / counts[name] for name in sums}


def see(player: Player, batch: Batch, *, progress: float, epoch: float) -> Step:
    """Show a batch to the player's learner and to its teachers, and collect what they say."""
    learner, taps = player.learner, player.objective.taps()
    answers = {name: teacher.see(batch) for name, teacher in player.teachers.items()}
    student = answer(learner, batch.x, taps)
    if batch.view is not None:
        student = replace(student, view=answer(learner, batch.view, taps))
    return Step(
        batch=batch,
        student=student,
        teachers=answers,
        progress=progress,
        epoch=epoch,
        learner=learner,
        models={name: teacher.module for name, teacher in player.teachers.items() if teacher.module is not None},
    )


def _teachers(players: Sequence[Player]) -> list[Teacher]:
    """Each once, however many look at it."""
    return list({id(teacher): teacher for player in players for teacher in player.teachers.values()}.values())


@contextmanager
def _active(player: Player, players: Sequence[Player]) -> Iterator[None]:
    """While one plays, the others are frozen and in eval mode; gradients may still flow through them."""
    others = [other.module for other in players if other.module is not player.module]
    if not player.module.training:
        player.module.train()
    player.objective.train()
    flags = [(parameter, parameter.requires_grad) for other in others for parameter in other.parameters()]
    for other in others:
        other.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter, needed in flags:
            parameter.requires_grad_(needed)


def _refuse_nonfinite(total: Tensor, values: Mapping[str, Tensor], *, epoch: int, index: int) -> None:
    if math.isfinite(total.item()):
        return
    bad = [name for name, value in values.items() if not math.isfinite(value.item())] or ["the total"]
    raise StageError(
        f"the loss is not finite: {', '.join(bad)} at epoch {epoch + 1}, batch {index + 1}. "
        f"The state after epoch {epoch} is kept. Try a learning rate ten times smaller, and look for "
        "images that are not finite after normalisation (a std of 0)."
    )


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch * 7_919 + 17) % 2**63


def _state_of(student: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in student.state_dict().items()}


def _checkpoint(
    finished: int, players: Sequence[Player], trained: Trained, best: tuple[float, Mapping[str, Tensor]]
) -> dict[str, Any]:
    return {
        "finished": finished,
        "curves": trained.curves,
        "best_epoch": trained.best_epoch,
        "best_figure": best[0],
        "best_state": dict(best[1]),
        "players": [
            {
                "module": player.module.state_dict(),
                "objective": player.objective.state_dict(),
                "optimizer": player.optimizer.state_dict(),
                "schedule": player.schedule.state_dict(),
            }
            for player in players
        ],
    }


def _resume(
    student: nn.Module, players: Sequence[Player], checkpoint: Path | None
) -> tuple[Trained, tuple[float, dict[str, Tensor]] | None]:
    if checkpoint is None or not checkpoint.is_file():
        return Trained(), None
    try:
        state = load_state(checkpoint)
    except CorruptStateError:
        return Trained(), None  # half-written by an older crash: training starts over
    for player, saved in zip(players, state["players"], strict=True):
        player.module.load_state_dict(saved["module"])
        player.objective.load_state_dict(saved["objective"])
        player.optimizer.load_state_dict(saved["optimizer"])
        player.schedule.load_state_dict(saved["schedule"])
    trained = Trained(curves=state["curves"], best_epoch=state["best_epoch"], resumed_at=state["finished"])
    return trained, (state["best_figure"], state["best_state"])
