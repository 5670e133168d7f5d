"""The same figures as on this machine, taken on one board or several at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..targets.cpu import BFLOAT_UNITS
from ..targets.jobs import Engine
from ..targets.operator_tables import version_tuple
from ..targets.remote.measuring import Board, measure_on
from ..targets.remote.together import on_all
from ..targets.trt import STRONGLY_TYPED
from .artifact import Context, ExportedFile
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

    def measure_one(board: Board, place: int) -> Measurement:
        return measure_on(
            board,
            list(engines_on(board, files, context).values()),
            profile=context.profile,
            inputs=inputs,
            seconds=settings.seconds,
            lock_clocks=settings.lock_clocks,
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
        figures.append(figures_of(one, files, context, answers=answers, labels=labels) | _about(one, settings))
    others = [
        {"device": str(board.address)} | facts for board, facts in zip(context.boards[1:], figures[1:], strict=True)
    ]
    return figures[0] | ({"boards": others} if others else {})


def how_to_go_on(board: Board) -> str:
    return (
        f"what was begun on {board.address} goes on there. The same command picks it up; "
        f"`compress device clean {board.address}` ends it and removes everything"
    )


def engines_on(board: Board, files: Sequence[ExportedFile], context: Context) -> dict[str, Engine]:
    """One engine for each ONNX file, and one more for each float file that the board computes in fewer bits, too."""
    profile = context.profile
    engines = {}
    for file in files:
        twin = _twin_of(board, file, context)
        for name in (file.variant, *([f"{file.variant}-{twin}"] if twin else [])):
            engines[name] = Engine(
                name=name,
                path=file.onnx,
                runtime=profile.runtime,
                precision=twin if twin and name != file.variant else _precision(file, profile.runtime),
                threads=profile.threads,
            )
    return engines


def _precision(file: ExportedFile, runtime: str) -> str:
    """TensorRT is told that a file is in FP16; other runtimes see it in its tensors."""
    return file.precision if runtime == "tensorrt" or file.precision == "int8" else "fp32"


def _twin_of(board: Board, file: ExportedFile, context: Context) -> str | None:
    precisions, facts = context.profile.precisions, board.facts
    if file.precision != "fp32":
        return None
    if context.profile.runtime == "tensorrt":
        # from TensorRT 11 on precisions come from the graph alone: a float32 file has no float16 engine
        is_weak = facts.tensorrt is None or version_tuple(facts.tensorrt) < STRONGLY_TYPED
        return HALF if HALF in precisions and is_weak else None
    has_units = not BFLOAT_UNITS.isdisjoint(facts.instruction_sets)
    return BFLOAT if BFLOAT in precisions and has_units else None


def _about(found: Measurement, settings: Measure) -> dict[str, Any]:
    """What the board's script does not measure, and what was answered by a sample."""
    missing = {"all cores": "boards are timed on pinned cores only"} if settings.all_cores else {}
    if settings.layers:
        missing["layers"] = "the time of layers is not read on boards"
    if settings.sustained_seconds:
        missing["sustained"] = "boards are not timed for long"
    caveats = [str(caveat) for caveat in found.caveats]
    if found.answered is not None:
        count = sum(map(len, found.answered.values()))
        caveats.append(
            f"The board answered {count} test samples, one process for each: accuracy is on these, and what was chosen "
            "by the validation samples rests on torch's answers."
        )
    return {"caveats": caveats, "not_measured": {**found.not_measured, **missing}}


class _Shares:
    """How far several boards are, as one share."""

    def __init__(self, progress: Progress, count: int) -> None:
        self.progress, self.shares, self.lock = progress, [0.0] * count, threading.Lock()

    def update(self, place: int, share: float, text: str, *, who: str) -> None:
        with self.lock:
            self.shares[place] = share
            many = len(self.shares) > 1
            self.progress.update(sum(self.shares) / len(self.shares), f"{who}: {text}" if many else text)
