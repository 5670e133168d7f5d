"""Several games of a generator and a student begin: which goes on, and that it ends as if it had been alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from without_data import context, hurry, net, opened, settings, teacher

from edgepress.stages import teaching
from edgepress.stages.artifact import Context
from edgepress.stages.crew import Crew
from edgepress.stages.lesson import Lesson
from edgepress.stages.synthesis import trials
from edgepress.stages.synthesis.methods import METHODS
from edgepress.stages.synthesis.order import mixed
from edgepress.stages.synthesis.settings import Synthesis
from edgepress.stages.synthesis.trials import STARTS, Begun, best_game
from edgepress.stages.synthesis.work import tries_of
from edgepress.stages.teaching import teach
from edgepress.targets.errors import StageError

ALONE = Crew(device=torch.device("cpu"))
GAMES = [name for name, method in METHODS.items() if method.grows and method.play != "pixels"]


class Brightness(nn.Module):
    """Answers 1 to bright images, 0 to dark ones; the border is where it is put."""

    def __init__(self, border: float) -> None:
        super().__init__()
        self.border = nn.Parameter(torch.tensor(border))

    def forward(self, x: Tensor) -> Tensor:
        over = 20 * (x.mean(dim=(1, 2, 3)) - self.border)
        return torch.stack([-over, over], dim=1)


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    hurry(monkeypatch)
    data = opened(settings(method="dfad"), net(seed=0, norms=False), tmp_path / "cache")
    return context(data, tmp_path / "work", note=[].append)


def shades(*values: int) -> Tensor:
    """Images whose pixels lie around these values, of which the normalised 0 is 127."""
    dice = torch.Generator().manual_seed(0)
    base = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
    return (base + 40 * torch.randn(len(values), 1, 8, 8, generator=dice)).clamp(0, 255).to(torch.uint8)


def chosen(around: Context, *games: Begun | StageError) -> tuple[Context, list[dict[str, Any]]]:
    """What became of games that came so far."""
    left = list(games)

    def begin(_: Context) -> Begun:
        game = left.pop(0)
        if isinstance(game, StageError):
            raise game
        return game

    return best_game(begin, around, starts=len(games), epochs=1, of=10, crew=ALONE)


def begun(border: float, images: Tensor) -> Begun:
    return Begun(student=Brightness(border), teacher=Brightness(0.0), images=images)


def test_a_student_that_knows_only_its_own_easy_images_does_not_win(around: Context) -> None:
    easy = begun(0.5, shades(*[20] * 8, *[235] * 8))
    hard = begun(0.0, shades(*[20] * 6, 105, 105, *[235] * 6, 150, 150))
    after, (first, second) = chosen(around, easy, hard)
    assert first["disagreement"] == pytest.approx(2 / 32)  # none on its own, both of the brighter greys of the other
    assert second["disagreement"] == 0
    assert second["kept"]
    assert not first["kept"]
    assert second["score"] > first["score"]
    assert after.work == around.work / "start-2"
    assert after.seed == second["seed"] == mixed(around.seed, 1)
    assert first["seed"] == around.seed


def test_a_start_that_collapsed_is_not_gone_on_with(around: Context) -> None:
    _, (first, second) = chosen(around, begun(0.0, shades(*[235] * 16)), begun(0.9, shades(*[20] * 8, *[140] * 8)))
    assert "class 1" in first["collapsed"]
    assert second["kept"]
    assert second["disagreement"] > first["disagreement"] == 0


def test_a_start_whose_losses_are_no_numbers_leaves_it_to_the_others(around: Context) -> None:
    notes: list[str] = []
    good = begun(0.1, shades(*[20] * 8, *[235] * 8))
    after, found = chosen(replace(around, note=notes.append), StageError("dfad: not finite any more"), good)
    assert found[0] == {
        "seed": 0, "score": None, "disagreement": None, "collapsed": "dfad: not finite any more", "kept": False,
    }  # fmt: skip
    assert found[1]["kept"]
    assert after.work.name == "start-2"
    assert notes == [
        "start 2 of 2 goes on; scores without data: none (dfad: not finite any more), "
        "1.000 (0.0 % answered otherwise than by the teacher)"
    ]


def test_where_none_can_be_played_the_reason_of_the_first_is_told(around: Context) -> None:
    with pytest.raises(StageError, match="the first reason"):
        chosen(around, StageError("the first reason"), StageError("another"))


def test_what_was_chosen_is_not_chosen_again(around: Context) -> None:
    games = begun(0.4, shades(20, 140, 235)), begun(0.0, shades(20, 140, 235))
    first = chosen(around, *games)
    assert not (around.work / "start-1").exists()

    def begin(_: Context) -> Begun:
        pytest.fail("it was chosen")

    after, found = best_game(begin, around, starts=2, epochs=1, of=10, crew=ALONE)
    assert found == first[1]
    assert (after.work, after.seed) == (first[0].work, first[0].seed)
    (around.work / trials.CHOSEN).write_text("[{}]")
    with pytest.raises(pytest.fail.Exception):
        best_game(begin, around, starts=2, epochs=1, of=10, crew=ALONE)


def test_only_the_curves_of_the_start_that_goes_on_are_told_and_progress_never_goes_back(around: Context) -> None:
    class Told:
        def __init__(self) -> None:
            self.epochs: list[tuple[int, float]] = []
            self.shares: list[float] = []
            self.words: list[str] = []

        def note(self, epoch: int, figures: Any) -> None:
            self.epochs.append((epoch, figures["loss"]))

        def update(self, share: float, text: str) -> None:
            self.shares.append(share)
            self.words.append(text)

        def close(self) -> None: ...

    told, games = Told(), [begun(0.4, shades(20, 140, 235)), begun(0.0, shades(20, 140, 235))]

    def begin(one: Context) -> Begun:
        one.tracker.note(1, {"loss": float(len(games))})
        one.progress.update(0.05, "half of a trial")
        one.progress.update(0.1, "the trial of one epoch in ten")
        return games.pop(0)

    after, _ = best_game(begin, replace(around, tracker=told, progress=told), starts=2, epochs=1, of=10, crew=ALONE)
    after.progress.update(0.1, "goes on")
    after.progress.update(1.0, "the end")
    assert told.epochs == [(1, 1.0)]
    assert told.words[1::2] == [
        "start 1 of 2, the trial of one epoch in ten",
        "start 2 of 2, the trial of one epoch in ten",
        "the end",
    ]
    assert told.shares == pytest.approx([0.5 / 11, 1 / 11, 1.5 / 11, 2 / 11, 2 / 11, 1.0])
    after.tracker.note(2, {"loss": 7.0})
    assert told.epochs[-1] == (2, 7.0)


def test_only_a_game_that_takes_long_enough_is_tried_from_several_starts() -> None:
    made = Synthesis(restarts=3)
    assert tries_of(METHODS["dfad"], made, epochs=30) == (3, 3)
    assert tries_of(METHODS["fastdfkd"], made, epochs=5) == (3, 1)
    assert tries_of(METHODS["dfad"], made, epochs=4) == (1, 0)
    assert tries_of(METHODS["dfad"], Synthesis(restarts=1), epochs=30) == (1, 0)
    for name in ("deepinversion", "zeroq", "noise"):  # no generator that could start elsewhere
        assert tries_of(METHODS[name], made, epochs=30) == (1, 0)


def lesson(**changes: Any) -> Lesson:
    values: dict[str, Any] = {"epochs": 5, "batch_size": 16, "lr": 1e-2, "ce": 0.0, "kd": 1.0}
    return Lesson(**(values | changes))


@pytest.fixture
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]:
    """A student of five epochs without data; the last is kept."""
    hurry(monkeypatch)
    known = teacher(norms=True)

    def teach_it(
        folder: str, method: str, *, seed: int = 0, evaluate: Callable[[], float] = lambda: 0.0, **changes: Any
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        data = opened(settings(method=method, steps=2), known, tmp_path / "cache")
        assert data.synthetic is not None
        data = replace(data, synthetic=replace(data.synthetic, settings=settings(method=method, **changes).synthesis))
        student = net(seed=5, norms=True, width=6)
        where = replace(context(data, tmp_path / folder), seed=seed)
        trained, figures = teach(student, lesson(), where, teacher=known, evaluate=evaluate)
        assert len(trained.curves["validation"]) == 5
        return copy.deepcopy(student.state_dict()), figures

    return teach_it


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("method", GAMES)
def test_the_start_that_goes_on_ends_as_it_would_have_alone(
    method: str, taught: Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]
) -> None:
    best, figures = taught("two", method, steps=2, restarts=2)
    (kept,) = (one for one in figures[STARTS] if one["kept"])
    assert len({one["score"] for one in figures[STARTS]}) == 2
    alone, others = taught("one", method, steps=2, restarts=1, seed=kept["seed"])
    assert alike(best, alone)
    assert STARTS not in others


@pytest.mark.parametrize("method", ["dfad", "fastdfkd"])
@pytest.mark.parametrize("at", [1, 3, 5])  # in the first trial, in the second, and after the choice
def test_killed_while_starts_are_tried_or_after_it_ends_as_if_it_had_not_been(
    method: str, at: int, taught: Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]
) -> None:
    whole, figures = taught("whole", method, steps=2, restarts=2)
    calls: list[int] = []

    def killed() -> float:
        calls.append(1)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        taught("killed", method, steps=2, restarts=2, evaluate=killed)
    ended, again = taught("killed", method, steps=2, restarts=2)
    assert alike(ended, whole)
    assert again[STARTS] == figures[STARTS]


def test_what_a_student_is_at_the_end_of_a_trial_is_judged_and_not_its_best_epoch(
    taught: Callable[..., tuple[dict[str, Tensor], dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    judged = trials._judged

    def remember(games: Any, around: Context) -> Any:
        seen.extend(copy.deepcopy(game.student.state_dict()) for _, game in games)
        return judged(games, around)

    monkeypatch.setattr(trials, "_judged", remember)
    figures = iter([1.0] + 99 * [0.0])  # the state before training is the best of the first trial
    taught("judged", "dfad", steps=2, restarts=2, evaluate=lambda: next(figures))
    start = net(seed=5, norms=True, width=6).state_dict()
    assert len(seen) == 2
    assert not any(alike(state, start) for state in seen)


def test_the_last_epoch_of_a_game_stays_unless_it_is_surely_worse_than_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    known = teacher(norms=True)
    data = opened(settings(method="dfad"), known, tmp_path / "cache")
    judges = len(data.val)

    def best(name: str, *figures: float, images: Any = None) -> int:
        told, student = iter((0.0, *figures)), net(seed=5, norms=True, width=6)
        trained, _ = teach(
            student, lesson(epochs=2), context(data, tmp_path / name), teacher=known, evaluate=lambda: next(told),
            images=images,
        )  # fmt: skip
        return trained.best_epoch

    chance = teaching.alike(judges)
    assert chance == pytest.approx(100 * 1.96 * (2 * 0.25 / judges) ** 0.5)
    assert best("by chance", 80.0, 80.1 - chance) == 2
    assert best("surely", 80.0, 79.9 - chance) == 1
    assert best("of images that there are", 80.0, 79.9, images=data.train) == 1


def test_a_stage_that_learns_from_the_images_that_there_are_tries_nothing(
    taught: Callable[..., tuple[dict[str, Tensor], dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "best_game", lambda *_, **__: pytest.fail("there is no game"))
    _, figures = taught("still", "zeroq", restarts=2)
    assert STARTS not in figures
