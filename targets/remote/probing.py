"""Time candidates on a board over ssh, for pruning that works towards a limit there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..jobs import Engine
from ..probing import Probed
from ..profiles import Profile
from ..sessions import Array
from .measuring import Board, measure_on


@dataclass(frozen=True, kw_only=True)
class BoardProber:
    """A board, with the job and the script that measure everything else there.

    sample: one input, (1, ...) as the network takes it. lock_clocks: hold them while candidates are timed. Every
    candidate is sent, built there where the runtime builds, timed in turn with the others, and removed; the engine of
    the first, which all are compared with, is kept there for the next time. A run that was interrupted finds the job
    that went on without it.
    """

    board: Board
    profile: Profile
    sample: Array
    lock_clocks: bool = False

    @property
    def identity(self) -> Mapping[str, Any]:
        facts = self.board.facts
        versions = {**facts.runtimes, "tensorrt": facts.tensorrt}
        return {
            "device": facts.model or facts.cpu,
            "cpu": facts.cpu,
            "gpu": facts.gpu,
            "power_mode": facts.power_mode,
            "runtime": self.profile.runtime,
            "version": versions.get(self.profile.runtime),
            "threads": self.profile.threads,
            "settings": dict(self.profile.trtexec),
            "lock_clocks": self.lock_clocks,
        }

    def probe(
        self,
        engines: Sequence[Engine],
        *,
        seconds: float,
        memory: bool = False,
        told: Callable[[str, float], None] = lambda text, share: None,
    ) -> Mapping[str, Probed]:
        """As `Prober` says. memory: a board tells it anyway. DeviceError: it could not be done."""
        named = {f"probe-{place}": engine for place, engine in enumerate(engines)}
        found = measure_on(
            self.board,
            [replace(engine, name=name) for name, engine in named.items()],
            profile=self.profile,
            inputs={"sample": self.sample},
            seconds=seconds,
            lock_clocks=self.lock_clocks,
            layers=False,
            passing=frozenset(list(named)[1:]),
            progress=told,
        )
        return {
            named[name].name: Probed(
                latency=one.latency, memory_mb=(one.memory_mb or {}).get("peak"), failed=one.failed
            )
            for name, one in found.figures.items()
        }
