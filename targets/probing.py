"""Time candidates while a network is being shaped: one question, whoever answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import machine
from .jobs import Engine
from .measure import measure
from .runtimes import target
from .sessions import Array
from .statistics import Latency

Told = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What one candidate showed. failed: why there is no latency. memory_mb: peak, where it was asked for."""

    latency: Latency | None = None
    memory_mb: float | None = None
    failed: str | None = None


class Prober(Protocol):
    """This machine, a board, or whatever else runs ONNX files and tells how long they take."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that times depend on beside the files, as plain data: `runtime` and `threads` of the engines, and
        such as device and version. Tables of times hold for nothing else."""

    def probe(
        self, engines: Sequence[Engine], *, seconds: float, memory: bool = False, told: Told = lambda text, share: None
    ) -> Mapping[str, Probed]:
        """Time ONNX files in turn, in one run, so that each can be compared with the first. seconds: of timing, all
        files together. KeyboardInterrupt: it was stopped; nothing is returned then, since half a run compares
        nothing."""


@dataclass(frozen=True, kw_only=True)
class LocalProber:
    """This machine, with the loop and the fresh processes that measure everything else.

    sample: one input, as the network takes it. environment: of the measuring process.
    """

    runtime: str
    sample: Array
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> Mapping[str, Any]:
        here = machine.describe()
        return {
            "device": here["cpu"],
            "instruction_sets": here["instruction_sets"],
            "runtime": self.runtime,
            "version": target(self.runtime).version(),
            "threads": self.threads,
            "environment": dict(self.environment),
        }

    def probe(
        self, engines: Sequence[Engine], *, seconds: float, memory: bool = False, told: Told = lambda text, share: None
    ) -> Mapping[str, Probed]:
        found = measure(
            engines,
            inputs={"sample": self.sample},
            seconds=seconds,
            environment=self.environment,
            all_cores=False,
            memory=memory,
            energy=False,
            progress=told,
        )
        if found.incomplete:
            raise KeyboardInterrupt
        return {
            name: Probed(latency=one.latency, memory_mb=(one.memory_mb or {}).get("peak"), failed=one.failed)
            for name, one in found.figures.items()
        }
