"""What a training needs to go on after it was stopped: written after every epoch, read at its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .distill.nouns import Changing, Player, Samples, Teacher
from .tensors import CorruptStateError, fill_, load_state, save_state

Curves = dict[str, list[float]]
State = dict[str, Tensor]
Best = tuple[float, State]  # the figure that an epoch was chosen for, and what is kept of it


@dataclass(kw_only=True)
class Trained:
    """What training left behind. curves: one value for each epoch, by series; nan where there was none."""

    curves: Curves = field(default_factory=dict)
    best_epoch: int = 0  # 1 is the first; 0 is the state before training
    resumed_at: int = 0  # epochs that an earlier run had finished

    def add(self, series: Mapping[str, float], *, epoch: int) -> None:
        """Note the figures of an epoch, 0 for the first. A loss may begin late, or pause."""
        for name in {**self.curves, **series}:
            curve = self.curves.setdefault(name, [])
            curve += [float("nan")] * (epoch - len(curve))
            curve.append(series.get(name, float("nan")))


def save(
    finished: int, players: Sequence[Player], trained: Trained, best: Best, path: Path, *, samples: Samples
) -> None:
    """Write down where training stands after so many epochs: all of it or nothing."""
    state = {
        "finished": finished,
        "curves": trained.curves,
        "best_epoch": trained.best_epoch,
        "best_figure": best[0],
        "best_state": dict(best[1]),
        "players": [
            {
                "module": player.module.state_dict(),
                "objective": player.objective.state_dict(),
                "balance": player.objective.balance,
                "optimizer": player.optimizer.state_dict(),
                "schedule": player.schedule.state_dict(),
            }
            for player in players
        ],
        "teachers": [teacher.state_dict() for teacher in teachers_of(players)],
        "samples": samples.state_dict() if isinstance(samples, Changing) else {},
    }
    save_state(state, path)


def resume(players: Sequence[Player], path: Path | None, *, samples: Samples) -> tuple[Trained, Best | None]:
    """Set everybody to where an earlier run stopped; returns what it had found, or nothing where there was none."""
    if path is None or not path.is_file():
        return Trained(), None
    try:
        state: dict[str, Any] = load_state(path)
    except CorruptStateError:
        return Trained(), None  # half-written by an older crash: training starts over
    for player, saved in zip(players, state["players"], strict=True):
        fill_(player.module, saved["module"])
        player.objective.load_state_dict(saved["objective"])
        player.objective.balance.update(saved["balance"])
        player.optimizer.load_state_dict(saved["optimizer"])
        player.schedule.load_state_dict(saved["schedule"])
    for teacher, saved in zip(teachers_of(players), state["teachers"], strict=True):
        teacher.load_state_dict(saved)
    if isinstance(samples, Changing):
        samples.load_state_dict(state["samples"])
    trained = Trained(curves=state["curves"], best_epoch=state["best_epoch"], resumed_at=state["finished"])
    return trained, (state["best_figure"], state["best_state"])


def teachers_of(players: Sequence[Player]) -> list[Teacher]:
    """Each once, however many look at it."""
    return list({id(teacher): teacher for player in players for teacher in player.teachers.values()}.values())
