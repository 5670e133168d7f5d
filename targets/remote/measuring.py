"""The comparison that `measure` makes on this machine, on a board over ssh."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError, RuntimeMissingError
from ..figures import Measurement
from ..jobs import Engine
from ..operators import check
from ..profiles import Profile
from . import fitting, reading
from .address import Address
from .boards import BoardFacts
from .device import Device, JobFailedError, Left
from .ssh import size_of
from .work import ANSWERED_BY_TOOL, Work, evenly, is_asked_by_tool, plan

MIB = 2**20
ROOM = 3.0  # times the size of what is sent: engines and results come on top
Progress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board that answered. python: the interpreter there. power_mode: that it is put into while it is measured."""

    address: Address
    facts: BoardFacts
    python: str = "python3"
    power_mode: int | None = None

    def identity(self) -> list[Any]:
        """What makes figures of two boards comparable: another one gives other figures."""
        facts = self.facts
        return [facts.model, facts.cpu, facts.tensorrt, dict(facts.runtimes), facts.power_mode, facts.kernel]


def meet(
    address: Address,
    profile: Profile,
    *,
    python: str = "python3",
    lock_clocks: bool = False,
    power_mode: int | None = None,
) -> Board:
    """Ask a board what it is, before any work is done for it.

    DeviceError: it cannot be reached, or the profile does not fit it. RuntimeMissingError: it lacks the runtime.
    """
    with Device(address, python=python) as device:
        facts = device.probe()
    lacking = fitting.missing(profile, facts)
    if lacking is not None:
        raise RuntimeMissingError(f"{address}: {lacking}")
    found = fitting.problems(profile, facts, lock_clocks=lock_clocks, power_mode=power_mode)
    if found:
        raise DeviceError("\n".join(f"{address}: {problem}" for problem in found))
    if power_mode is not None:  # figures, and engines that are kept, are of this one
        facts = facts.model_copy(update={"power_mode": f"{power_mode}, for the measurement"})
    return Board(address=address, facts=facts, python=python, power_mode=power_mode)


def measure_on(
    board: Board,
    engines: Sequence[Engine],
    *,
    profile: Profile,
    inputs: Mapping[str, NDArray[Any]],
    seconds: float,
    lock_clocks: bool = False,
    layers: bool = True,
    passing: Collection[str] = (),
    seed: int = 0,
    progress: Progress = lambda text, share: None,
) -> Measurement:
    """Compare engines on the board. inputs: by split, as the network takes them; the first of the first is timed.

    Where the board answers one sample at a time, it answers a sample of the last split only: see `answered`. A job
    that is there already, from the same call that was interrupted, is picked up. passing: engines that nobody will want
    again; they and the job are removed there once it is read. DeviceError: it could not be done.
    """
    facts = board.facts
    _refuse_unbuildable(engines, profile, facts, board.address)
    answered = _sampled(inputs, profile, facts)
    rows = inputs if answered is None else {name: inputs[name][chosen] for name, chosen in answered.items()}
    planned = plan(
        engines,
        profile=profile,
        facts=facts,
        inputs=np.concatenate(list(rows.values())),
        seconds=seconds,
        lock_clocks=lock_clocks,
        power_mode=board.power_mode,
        layers=layers,
        passing=passing,
        seed=seed,
    )
    _refuse_without_room(planned, board)
    splits = {name: len(images) for name, images in rows.items()}
    with Device(board.address, python=board.python) as device:
        try:
            results = device.carry_out(planned, progress=lambda share, text: progress(text, share))
        except JobFailedError as error:
            raise _with_reasons(error, planned, board, splits) from None
        found = _read(planned, results, board, splits)
        if found.unreliable or passing:
            device.clean(planned.key)  # the same call measures again, in place of fetching this once more
    return replace(found, answered=answered)


def _read(planned: Work, results: Left, board: Board, splits: Mapping[str, int]) -> Measurement:
    threads = int(planned.manifest["threads"])
    return reading.measurement(planned, results, facts=board.facts, splits=splits, threads=threads)


def _with_reasons(error: JobFailedError, planned: Work, board: Board, splits: Mapping[str, int]) -> DeviceError:
    """What went wrong with each engine, as its logs tell."""
    try:
        figures = _read(planned, error.results, board, splits).figures
    except DeviceError:
        return DeviceError(str(error))
    reasons = [f"{name}: {one.failed}" for name, one in figures.items() if one.failed]
    return DeviceError("\n  ".join([str(error), *reasons]))


def _refuse_unbuildable(engines: Sequence[Engine], profile: Profile, facts: BoardFacts, address: Address) -> None:
    """Before anything is sent: what the parser of the board's own version would refuse."""
    if profile.runtime != "tensorrt":
        return
    version = facts.tensorrt or profile.runtime_version or ""
    paths = dict.fromkeys(engine.path for engine in engines)
    has_int8 = facts.has_int8 is not False
    found = [f"  {problem}" for path in paths for problem in check(path, version=version, has_int8=has_int8)]
    if found:
        raise DeviceError("\n".join([f"{address}: TensorRT {version} there would not build these files:", *found]))


def _sampled(
    inputs: Mapping[str, NDArray[Any]], profile: Profile, facts: BoardFacts
) -> dict[str, NDArray[np.intp]] | None:
    """Which inputs are answered, evenly spread over the last split; None: all of every split."""
    if not is_asked_by_tool(profile, facts):
        return None
    name = list(inputs)[-1]
    return {name: evenly(len(inputs[name]), int(profile.trtexec.get("samples", ANSWERED_BY_TOOL)))}


def _refuse_without_room(planned: Work, board: Board) -> None:
    needed_mb = ROOM * sum(map(size_of, planned.files.values())) / MIB
    if needed_mb > board.facts.disk_free_mb:
        raise DeviceError(
            f"{board.address}: the job takes about {needed_mb:.0f} MiB and {board.facts.disk_free_mb} MiB are free in "
            f"{board.facts.home}: make room there, or `compress device clean {board.address}`"
        )
