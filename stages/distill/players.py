"""Who plays: the student, networks that learn beside it, and opponents that a loss brings along."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..lesson import Lesson
from ..optimizing import optimizer_for, warm_cosine
from ..tensors import fill_
from .nouns import Batch, Objective, Out, Player, Samples, Teacher, Weighted
from .samples import swapped
from .watching import answer
from .weighing import weigher_for
from .wiring import wire


def company(
    networks: Mapping[str, nn.Module],
    lesson: Lesson,
    *,
    taught_by: Callable[[nn.Module], Mapping[str, Teacher]],
    samples: Samples,
    steps: int,
    seed: int = 0,
    lag: int = 0,
    shown_theirs: bool = True,
    crossed: frozenset[str] = frozenset(),
) -> list[Player]:
    """Players for networks that learn together, each with its opponents before it; the last one is the last network.

    taught_by: who else teaches a network. steps: updates of each. seed: of what losses create. lag, shown_theirs: of
    `PeerAnswers`. crossed: who is given what the others' teachers are shown. StageError: a loss cannot be wired.
    """
    players: list[Player] = []
    for name, network in networks.items():
        player = learner(
            network,
            lesson,
            teachers={**taught_by(network), **peers_of(network, networks, lag=lag, shown_theirs=shown_theirs)},
            probe=swapped(samples.probe()) if name in crossed else samples.probe(),
            steps=steps,
            seed=seed,
            name=name,
        )
        players += [*opponents(player), player]
    return players


def learner(
    network: nn.Module,
    lesson: Lesson,
    *,
    teachers: Mapping[str, Teacher],
    probe: Batch,
    steps: int,
    seed: int = 0,
    name: str = "student",
) -> Player:
    """A network that learns what the lesson says, from these teachers, in so many steps.

    seed: of what losses create. StageError: a loss cannot be wired.
    """
    objective = wire(lesson.losses(), learner=network, teachers=teachers, probe=probe, seed=seed)
    optimizer = optimizer_for(lesson, [*network.parameters(), *objective.learned()])
    return Player(
        name=name,
        module=network,
        learner=network,
        objective=objective,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps)),
        teachers=teachers if objective.needs() & {"teacher", "teachers"} else {},
        weigher=weigher_for(lesson.weigh, objective, probe) if len(teachers) > 1 else None,
        clip_norm=lesson.clip_norm,
    )


def opponents(player: Player) -> list[Player]:
    """Those who play against this one: each looks at the same student and teachers and has a loss of its own."""
    found = []
    for part in player.objective.parts:
        against = part.term.opponent()
        if against is None:
            continue
        optimizer = torch.optim.Adam(against.module.parameters(), lr=against.lr, betas=(0.5, 0.999))
        found.append(
            Player(
                name=f"{player.name}'s opponent in {part.name}",
                module=against.module,
                learner=player.learner,
                objective=Objective([Weighted(name="tell", term=against.term, weight=1.0, teacher=part.teacher)]),
                optimizer=optimizer,
                schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
                teachers=player.teachers,
            )
        )
    return found


class PeerAnswers:
    """What another network that learns at the same time says of a batch; no gradient reaches it.

    lag: its answers are those of up to so many updates ago, as in codistillation (Anil et al., 2018,
    arXiv:1804.03235), where networks on different machines see each other's checkpoints; 0: as it is now, as in deep
    mutual learning (Zhang et al., 2018, arXiv:1706.00384).
    """

    def __init__(self, network: nn.Module, *, lag: int = 0, shown_theirs: bool = True) -> None:
        """shown_theirs: it is given what a batch has for teachers, as under attack, where that is the clean image."""
        self._shown_theirs = shown_theirs
        self.module: nn.Module | None = network
        self.taps: tuple[str, ...] = ()
        self._live, self._lag, self._updates = network, lag, 0
        self._said = copy.deepcopy(network) if lag else network

    def see(self, batch: Batch) -> Out:
        self._said.eval()  # its own turn switches it back
        theirs = batch.teacher_x if self._shown_theirs else None
        with torch.no_grad():
            return answer(self._said, batch.x if theirs is None else theirs, self.taps)

    def to(self, device: torch.device) -> None:
        self._said.to(device)

    def after(self, epoch: int) -> None: ...

    def stepped(self) -> None:
        self._updates += 1
        if self._lag and self._updates % self._lag == 0:
            self._said.load_state_dict(self._live.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs: the network itself is saved by the player that trains it."""
        return {"updates": self._updates, "said": dict(self._said.state_dict())} if self._lag else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` told."""
        if self._lag:
            self._updates = int(state["updates"])
            fill_(self._said, state["said"])


def peers_of(
    network: nn.Module, others: Mapping[str, nn.Module], *, lag: int = 0, shown_theirs: bool = True
) -> dict[str, Teacher]:
    """The other networks as teachers of this one."""
    return {
        name: PeerAnswers(other, lag=lag, shown_theirs=shown_theirs)
        for name, other in others.items()
        if other is not network
    }


def another_start(network: nn.Module, *, seed: int) -> nn.Module:
    """A network of the same kind with initial weights of its own, each module those that its class draws."""
    other = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in other.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
    return other


@dataclass(kw_only=True)
class Jury:
    """Chooses among networks that learned together: the one that answers best is kept.

    answer: a network -> its answers to the validation samples, and their labels. judge: of those two a figure, higher
    is better. figures: each network's own after the last call, and that of their mean answer.
    """

    networks: Mapping[str, nn.Module]
    answer: Callable[[nn.Module], tuple[Tensor, Tensor]]
    judge: Callable[[Tensor, Tensor], float]
    figures: dict[str, float] = field(default_factory=dict)

    def __call__(self) -> float:
        """The best network's figure."""
        said = {name: self.answer(network) for name, network in self.networks.items()}
        self.figures = {name: self.judge(*pair) for name, pair in said.items()}
        best = self.figures[self._best()]
        if len(said) > 1:
            together = torch.stack([logits.softmax(dim=1) for logits, _ in said.values()]).mean(dim=0)
            _, labels = next(iter(said.values()))
            self.figures["ensemble"] = self.judge(together.clamp(min=1e-30).log(), labels)
        return best

    def state(self) -> dict[str, Tensor]:
        """A copy of the best network's parameters and buffers."""
        network = self.networks[self._best()]
        return {name: value.detach().clone() for name, value in network.state_dict().items()}

    def series(self) -> dict[str, float]:
        """The figures, named as curves are."""
        return {f"{name} validation": value for name, value in self.figures.items()}

    def _best(self) -> str:
        return max(self.networks, key=lambda name: self.figures[name])


def names_of_peers(count: int) -> Sequence[str]:
    """The student comes first."""
    return ("student", *(f"peer {number}" for number in range(2, count + 1)))
