"""The one training loop: players take turns on samples, teachers answer, every epoch is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from . import checkpoint as checkpoints
from .balance import add_, balance_, gradients, norms, shares
from .checkpoint import State, Trained, teachers_of
from .crew import Crew
from .distill.nouns import Batch, Player, Samples, Step
from .distill.watching import answer
from .ledger import Ledger
from .progress import Progress, Quiet
from .tensors import fill_
from .tracking import Tracker, Untracked

__all__ = ["Trained", "fit", "see"]

Autocast = Callable[[], AbstractContextManager[object]]
ROUNDS_BETWEEN_LOOKS = 8  # at what the losses are: each look waits for the device


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
    autocast: Autocast = nullcontext,
    state: Callable[[], State] | None = None,
    figures: Callable[[], Mapping[str, float]] = dict,
    accumulate: int = 1,
    balance: bool = False,
    crew: Crew | None = None,
    tracker: Tracker | None = None,
    alike: float = 0.0,
    until: int | None = None,
) -> Trained:
    """Play `epochs` epochs of rounds and leave the student in the state of its best one.

    evaluate: the figure to choose epochs by, higher is better. alike: figures that differ by no more are taken for
    equal, and the later of equals wins. checkpoint: a file; training goes on from what it holds. before_epoch: called
    with 0, 1, ...; switches what a schedule switches. autocast: opens a block in which networks run in lower
    precision; losses are always computed in float32. state: what is kept of an epoch once it was evaluated; none: the
    student's own state. figures: more to note of each. accumulate: batches whose gradients are averaged for one
    update. balance: weights are ratios of pull, not factors. crew: the processes that train together. tracker: told
    every figure of every epoch. until: stop after so many of the epochs, for another call to go on from the
    checkpoint; the student then stays in its last state.
    Everything random depends on the seed and the epoch, so a resumed run ends as an uninterrupted one.

    StageError: a loss or a figure is not finite. The file then still holds the last good epoch.
    """
    crew = crew or Crew(device=torch.device("cpu"))
    tracker = tracker or Untracked()
    state = state or (lambda: _state_of(student))
    trained, best = checkpoints.resume(players, checkpoint, samples=samples)
    for player in players:
        crew.start_alike_(player.module, player.objective)
    loop = _Loop(
        players=players, samples=samples, epochs=epochs, progress=progress or Quiet(), autocast=autocast,
        accumulate=accumulate, balance=balance, crew=crew,
    )  # fmt: skip
    for name, curve in trained.curves.items():
        loop.ledger.last[name] = f"{curve[-1]:.4g} over epoch {len(curve)}"
    if best is None:
        best = (crew.told(evaluate()), state())
    for epoch in range(trained.resumed_at, epochs if until is None else min(until, epochs)):
        torch.manual_seed(_mix(seed, epoch) + crew.rank)
        before_epoch(epoch)
        series = loop.play(epoch)
        for player in players:
            crew.average_buffers_(player.module)
        for teacher in teachers_of(players):
            teacher.after(epoch)
        for player in players:
            player.objective.settle(player.learner)
        figure = crew.told(evaluate())
        trained.add({**series, **figures(), "validation": figure}, epoch=epoch)
        if figure >= best[0] - alike:
            best = (max(best[0], figure), state())
            trained.best_epoch = epoch + 1
        if checkpoint is not None and crew.is_main:
            checkpoints.save(epoch + 1, players, trained, best, checkpoint, samples=samples)
        tracker.note(epoch + 1, {name: curve[-1] for name, curve in trained.curves.items()} | _rates(players))
    if until is None:
        fill_(student, best[1])
    student.eval()
    return trained


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """Who plays on what, and how. seen: samples since each player's last update, by its name."""

    players: Sequence[Player]
    samples: Samples
    epochs: int
    progress: Progress
    autocast: Autocast
    accumulate: int
    balance: bool
    crew: Crew
    ledger: Ledger = field(init=False)
    seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ledger", Ledger(crew=self.crew))

    def play(self, epoch: int) -> dict[str, float]:
        """Play one epoch; returns each loss's mean, and its share of the pull at the student at the first batch."""
        rounds = self.samples.begin(epoch)
        pulls: dict[str, float] = {}
        try:
            for index in range(rounds):
                for player in self.players:
                    for turn in range(index * player.steps, (index + 1) * player.steps):
                        pulls |= self._take(player, turn, rounds * player.steps, epoch=epoch, gone=index / rounds)
                if index % ROUNDS_BETWEEN_LOOKS == 0 or index == rounds - 1:
                    self.ledger.settle()
                    self._tell(epoch, (index + 1) / rounds)
        except (RuntimeError, ValueError):
            self.ledger.settle(alone=True)  # a loss that turned nan is the reason of much that fails after it
            raise
        return {**self.ledger.close(), **pulls}

    def _take(self, player: Player, turn: int, turns: int, *, epoch: int, gone: float) -> dict[str, float]:
        """One turn of a player, `turn` of `turns` in this epoch; returns what it found about pulls, if it looked."""
        place = turn % self.accumulate
        together = min(self.accumulate, turns - turn + place)
        found: dict[str, float] = {}
        batch = self.samples.next(player)
        with _active(player, self.players):
            with self.autocast():
                step = see(player, batch, progress=(epoch + gone) / self.epochs, epoch=epoch + gone)
            total, values = player.objective(step)
            if place == 0:
                player.optimizer.zero_grad(set_to_none=True)
            if turn == 0 and len(values) > 1:
                total, found = self._weigh(player, step, values, together=together)
            elif total.requires_grad:  # no loss counts yet where every ramp is still at 0
                (total / together if together > 1 else total).backward()
            named = {self._name(player, name): value for name, value in values.items()}
            self.ledger.note(total, named, samples=len(batch.x), epoch=epoch, index=turn // player.steps)
            self.seen[player.name] = self.seen.get(player.name, 0) + len(batch.x)
            if place == together - 1:
                self._update(player)
        if place == together - 1 and player.module is player.learner:  # an opponent's turn changes no student
            for teacher in player.teachers.values():
                teacher.stepped()
        return found

    def _update(self, player: Player) -> None:
        self.crew.average_gradients_(_learning(player), weight=self.seen.pop(player.name))
        if player.clip_norm is not None:
            nn.utils.clip_grad_norm_(player.module.parameters(), player.clip_norm)
        player.optimizer.step()
        player.schedule.step()

    def _weigh(
        self, player: Player, step: Step, values: Mapping[str, Tensor], *, together: int
    ) -> tuple[Tensor, dict[str, float]]:
        """A step backwards, loss by loss, that looks how hard each pulls, and balances that where it is wished.

        Returns the total, and what was seen.
        """
        objective, learning = player.objective, _learning(player)
        found = gradients(values, learning)
        own = sum(1 for parameter in player.module.parameters() if parameter.requires_grad)
        pulls = norms({name: one[:own] for name, one in found.items()}, crew=self.crew, samples=len(step.batch.x))
        seen: dict[str, float] = {}
        if self.balance:
            balance_(objective, pulls)
            seen = {self._name(player, f"balance {name}"): factor for name, factor in objective.balance.items()}
        weights = {part.name: objective.weight(part, step) / together for part in objective.parts}
        add_(found, weights, learning)
        seen |= {self._name(player, f"share {one}"): share for one, share in shares(objective, pulls, step).items()}
        return objective.total(values, step), seen

    def _name(self, player: Player, series: str) -> str:
        return series if len(self.players) == 1 else f"{player.name} {series}"

    def _tell(self, epoch: int, share: float) -> None:
        losses = "  ".join(f"{name} {mean:.3f}" for name, mean in self.ledger.means().items())
        self.progress.update((epoch + share) / self.epochs, f"epoch {epoch + 1}/{self.epochs}  {losses}")


def see(player: Player, batch: Batch, *, progress: float, epoch: float) -> Step:
    """Show a batch to the player's learner and to its teachers, and collect what they say."""
    learner, taps = player.learner, player.objective.taps()
    answers = {name: teacher.see(batch) for name, teacher in player.teachers.items()}
    show = player.compiled or partial(answer, learner, taps=taps)
    student = show(batch.x)
    if batch.view is not None:
        student = replace(student, view=show(batch.view))
    return Step(
        batch=batch,
        student=student,
        teachers=answers,
        progress=progress,
        epoch=epoch,
        trust=player.weigher(list(answers.values()), batch) if player.weigher is not None else None,
        learner=learner,
        models={name: teacher.module for name, teacher in player.teachers.items() if teacher.module is not None},
    )


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


def _learning(player: Player) -> list[nn.Parameter]:
    """What a player's gradients are for: its own parameters first, then those of its losses."""
    own = [parameter for parameter in player.module.parameters() if parameter.requires_grad]
    return list(dict.fromkeys([*own, *(one for one in player.objective.learned() if one.requires_grad)]))


def _rates(players: Sequence[Player]) -> dict[str, float]:
    single = len(players) == 1
    return {
        "learning rate" if single else f"{player.name} learning rate": float(player.schedule.get_last_lr()[0])
        for player in players
    }


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch * 7_919 + 17) % 2**62


def _state_of(student: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in student.state_dict().items()}
