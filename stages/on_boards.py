"""The same figures as on this machine, taken on one board or several at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..targets.caveats import told
from ..targets.cpu import BFLOAT_UNITS
from ..targets.half import write_half
from ..targets.jobs import Engine
from ..targets.profiles import Profile
from ..targets.remote.boards import BoardFacts
from ..targets.remote.measuring import Board, measure_on
from ..targets.remote.together import on_all
from ..targets.trt import is_strongly_typed
from .artifact import Context, ExportedFile
from .explaining import explain
from .measured import figures_of
from .progress import Progress
from .twins import BFLOAT, HALF

if TYPE_CHECKING:
    from ..targets.figures import Measurement
    from .profile import Measure


def on_boards(
    settings: Measure,
    files: Sequence[ExportedFile],
    context: Context,
    *,
    inputs: Mapping[str, NDArray[Any]],
    answers: Mapping[str, Mapping[str, NDArray[np.float32]]],
    labels: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    """Figures of the first board, and those of the others under `boards`.

    DeviceError: one of them could not do it. KeyboardInterrupt: what runs there goes on, and the user was told how to
    come back to it.
    """
    shares = _Shares(context.progress, len(context.boards))
    engines = [engines_on(board.facts, files, context.profile, samples=inputs["val"]) for board in context.boards]

    def measure_one(board: Board, place: int) -> Measurement:
        return measure_on(
            board,
            engines[place],
            profile=context.profile,
            inputs=inputs,
            seconds=settings.seconds,
            lock_clocks=settings.lock_clocks,
            layers=settings.layers,
            seed=context.seed,
            progress=lambda text, share: shares.update(place, share, text, who=board.address.host),
        )

    calls = [lambda board=board, place=place: measure_one(board, place) for place, board in enumerate(context.boards)]
    try:
        found = on_all(calls)
    except KeyboardInterrupt:
        for board in context.boards:
            context.note(how_to_go_on(board))
        raise
    figures = []
    for one in found:
        if isinstance(one, BaseException):
            raise one
        known = figures_of(
            one,
            {file.variant: file.precision for file in files},
            profile=context.profile,
            metric=context.data.task.judge(),
            answers=answers,
            labels=labels,
        )
        more = explain(
            known["engines"],
            known["ratios"],
            one.layers,
            files=files,
            images=inputs["val"],
            machine=one.machine,
            profile=context.profile,
        )
        engines_known = {name: facts | more[name] for name, facts in known["engines"].items()}
        figures.append(known | {"engines": engines_known} | about(one, settings))
    others = [
        {"device": str(board.address)} | facts for board, facts in zip(context.boards[1:], figures[1:], strict=True)
    ]
    return figures[0] | ({"boards": others} if others else {})


def how_to_go_on(board: Board) -> str:
    return (
        f"what was begun on {board.address} goes on there. The same command picks it up; "
        f"`compress device clean {board.address}` ends it and removes everything"
    )


def engines_on(
    facts: BoardFacts, files: Sequence[ExportedFile], profile: Profile, *, samples: NDArray[Any]
) -> list[Engine]:
    """One engine for each ONNX file, and one more for each float file that the board computes in fewer bits, too.

    samples: as the network takes them. Where TensorRT goes by the types in a file, they tell what overflows float16,
    and the file with these types is written beside the other.
    """
    by_types = profile.runtime == "tensorrt" and is_strongly_typed(facts.tensorrt or profile.runtime_version or "")
    engines = []
    for file in files:
        own = file.precision if profile.runtime == "tensorrt" or file.precision == "int8" else "fp32"
        found = {file.variant: (own, file.onnx)}
        twin = _twin_of(facts, file, profile)
        if twin == HALF and by_types:
            found[f"{file.variant}-{HALF}"] = HALF, write_half(file.onnx, samples)
        elif twin == BFLOAT or (twin == HALF and file.fits_float16):
            found[f"{file.variant}-{twin}"] = twin, file.onnx
        engines += [
            Engine(name=name, path=path, runtime=profile.runtime, precision=precision, threads=profile.threads)
            for name, (precision, path) in found.items()
        ]
    return engines


def _twin_of(facts: BoardFacts, file: ExportedFile, profile: Profile) -> str | None:
    if file.precision != "fp32":
        return None
    if profile.runtime == "tensorrt":
        return HALF if HALF in profile.precisions else None
    has_units = not BFLOAT_UNITS.isdisjoint(facts.instruction_sets)
    return BFLOAT if BFLOAT in profile.precisions and has_units else None


def about(found: Measurement, settings: Measure) -> dict[str, Any]:
    """What the board's script does not measure, and what was answered by a sample."""
    missing = {"all cores": "boards are timed on pinned cores only"} if settings.all_cores else {}
    if settings.sustained_seconds:
        missing["sustained"] = "boards are not timed for long"
    caveats = told(found.caveats)
    if found.answered is not None:
        caveats.append(sampled_words(sum(map(len, found.answered.values()))))
    return {"caveats": caveats, "not_measured": {**found.not_measured, **missing}}


def sampled_words(count: int, *, by_tool: bool = True) -> str:
    """What follows from a board that answers test samples only. by_tool: trtexec, one at a time."""
    which = f"{count} test samples, in a process for each" if by_tool else f"{count} test samples and no others"
    return (
        f"The board answered {which}: its accuracy is on these alone. "
        "Validation accuracy, which the choice rests on, was found without the board."
    )


class _Shares:
    """How far several boards are, as one share."""

    def __init__(self, progress: Progress, count: int) -> None:
        self.progress, self.shares, self.lock = progress, [0.0] * count, threading.Lock()

    def update(self, place: int, share: float, text: str, *, who: str) -> None:
        with self.lock:
            self.shares[place] = share
            many = len(self.shares) > 1
            self.progress.update(sum(self.shares) / len(self.shares), f"{who}: {text}" if many else text)
