"""Let several games of a generator and a student begin, and go on with the one that promises most.

A game can be lost in its first rounds, and without data there is no accuracy to see it by. So each start is played for
a while, and they are compared by what the teacher says of the images that each has come to, and by how often its
student still answers otherwise than the teacher on the images of all starts: on its own alone, a generator that makes
nothing hard would look best. Labels and test images have no part in it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...targets.errors import StageError
from ..contract import Preprocessing
from ..progress import Span
from .order import mixed
from .score import examine

if TYPE_CHECKING:
    from ..artifact import Context
    from ..crew import Crew

CHOSEN = "chosen-start.json"
STARTS = "starts"  # of a stage's metrics: a list of `Start`, as JSON has it


@dataclass(frozen=True, kw_only=True)
class Start:
    """What became of one. score: `Score.total`, with the disagreement that was left: a share of all starts' images.

    Both are None where it did not come to images; collapsed says why.
    """

    seed: int
    score: float | None
    disagreement: float | None
    collapsed: str | None = None
    kept: bool = False


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A game after a while. student: as it is then. teacher: whom the images please. images: the newest, uint8."""

    student: nn.Module
    teacher: nn.Module
    images: Tensor


@dataclass
class _Remembered:
    """A tracker that tells later: of games that are given up, nothing."""

    told: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)

    def note(self, epoch: int, figures: Mapping[str, float]) -> None:
        self.told.append((epoch, dict(figures)))

    def close(self) -> None: ...


def best_game(
    begin: Callable[[Context], Begun], context: Context, *, starts: int, epochs: int, of: int, crew: Crew
) -> tuple[Context, list[dict[str, Any]]]:
    """What surrounds the game that is worth going on with, and what became of each start.

    begin: plays `epochs` epochs, of as many as `of`, in the folder and from the seed that it is given, and goes on
    where it was stopped. A second call after the choice finds it. StageError: none of them could be played.
    """
    whole = (starts - 1) * epochs + of

    def around(number: int, **changes: Any) -> Context:
        seed = mixed(context.seed, number) if number else context.seed
        work = context.work / f"start-{number + 1}"
        work.mkdir(parents=True, exist_ok=True)
        return replace(context, seed=seed, work=work, **changes)

    def part(number: int, words: str = "") -> Span:
        return Span(context.progress, number * epochs / whole, (number * epochs + of) / whole, words=words)

    found: list[Start] | None = crew.told(_known(context.work, starts))
    if found is None:
        remembered = [_Remembered() for _ in range(starts)]
        games = [
            _begun(
                begin,
                around(
                    number,
                    tracker=remembered[number],
                    progress=part(number, f"start {number + 1} of {starts}, "),
                    note=_unsaid,
                ),
            )
            for number in range(starts)
        ]
        found = crew.told(_judged(games, context))
        if crew.is_main:
            _write(context.work, found)
        for epoch, figures in remembered[_kept(found)].told:
            context.tracker.note(epoch, figures)
        context.note(_words(found))
    kept = _kept(found)
    if crew.is_main:
        for number in range(starts):
            if number != kept:
                shutil.rmtree(context.work / f"start-{number + 1}", ignore_errors=True)
    return around(kept, progress=part(starts - 1)), [asdict(one) for one in found]


def _begun(begin: Callable[[Context], Begun], context: Context) -> tuple[Context, Begun | StageError]:
    try:
        return context, begin(context)
    except StageError as error:  # a loss that is no number, say: another start may fare better
        return context, error


def _judged(games: Sequence[tuple[Context, Begun | StageError]], context: Context) -> list[Start]:
    """StageError: that of the first, where none could be played."""
    preprocessing = context.data.preprocessing
    assert isinstance(preprocessing, Preprocessing), "images are made, and no texts"
    played = [game for _, game in games if isinstance(game, Begun)]
    if not played:
        raise next(game for _, game in games if isinstance(game, StageError))
    everything = torch.cat([game.images for game in played])
    found = []
    for around, game in games:
        if isinstance(game, StageError):
            found.append(Start(seed=around.seed, score=None, disagreement=None, collapsed=str(game)))
            continue
        left = examine(everything, game.teacher, preprocessing, game.student).disagreement
        score = replace(examine(game.images, game.teacher, preprocessing), disagreement=left)
        found.append(Start(seed=around.seed, score=score.total, disagreement=left, collapsed=score.collapsed))
    best = max(
        range(len(found)), key=lambda number: (found[number].collapsed is None, found[number].score or -math.inf)
    )
    return [replace(one, kept=number == best) for number, one in enumerate(found)]


def _kept(found: Sequence[Start]) -> int:
    return next(number for number, one in enumerate(found) if one.kept)


def _words(found: Sequence[Start]) -> str:
    def words(one: Start) -> str:
        if one.score is None or one.disagreement is None:
            return f"none ({one.collapsed})"
        return f"{one.score:.3f} ({100 * one.disagreement:.1f} % answered otherwise than by the teacher)"

    scores = ", ".join(words(one) for one in found)
    return f"start {_kept(found) + 1} of {len(found)} goes on; scores without data: {scores}"


def _unsaid(text: str) -> None:
    """The game that goes on says it again."""


def _known(folder: Path, starts: int) -> list[Start] | None:
    """What an earlier run chose. None: it did not come so far."""
    try:
        found = [Start(**one) for one in json.loads((folder / CHOSEN).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == starts and sum(one.kept for one in found) == 1 else None


def _write(folder: Path, found: Sequence[Start]) -> None:
    part = folder / f"{CHOSEN}.part"
    part.write_text(json.dumps([asdict(one) for one in found]), encoding="utf-8")
    part.replace(folder / CHOSEN)
