"""What a measurement found, engine by engine."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .caveats import Caveat
from .energy import Energy
from .layers import Readings
from .statistics import Latency


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of one engine; None is "not measured".

    latency: one sample at a time, pinned to as many CPUs as the engine has threads. all_cores: the same with
    every core. batched: whole batches, pinned. memory_mb: resident MiB of a process that runs only this engine,
    after each phase (start, runtime, load, first, steady), and "peak". anonymous_mb: the same phases without
    what libraries could share. system_drop_mb: how much less the whole system had available, on boards whose GPU takes
    its memory from there too. outputs: the first output for every image, by split. int8: what the runtime
    really ran in INT8. cold_start_ms: once, in a fresh process: to import the runtime ("runtime_ms"), to load
    the model ("load_ms"), and for the first answer ("first_ms"). failed: why this engine is not to be used,
    whatever else was measured of it.
    """

    latency: Latency | None = None
    all_cores: Latency | None = None
    batched: Latency | None = None
    memory_mb: dict[str, float] | None = None
    anonymous_mb: dict[str, float] | None = None
    system_drop_mb: float | None = None
    outputs: dict[str, NDArray[np.float32]] | None = None
    int8: dict[str, Any] | None = None
    cold_start_ms: dict[str, float] | None = None
    energy: Energy | None = None
    failed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One comparison. caveats: what weakens it, each with advice.

    batch: samples of each call that `batched` timed. sustained: latencies over time, see sustained.summary.
    not_measured: figures that no engine has, and why. unreliable: why no claim can rest on these timings; None:
    they hold. incomplete: where it was stopped before it was done; None: it was not. answered: where a board answered a
    sample of the inputs only, which of each split; an absent split was not answered at all. layers: what a board
    counted of each; on this machine that is a measurement of its own (`layers.measure_layers`).
    """

    figures: dict[str, Figures]
    machine: dict[str, Any]
    caveats: list[Caveat]
    versions: dict[str, str]
    batch: int = 1
    sustained: dict[str, Any] | None = None
    not_measured: dict[str, str] = field(default_factory=dict)
    unreliable: str | None = None
    incomplete: str | None = None
    answered: dict[str, NDArray[np.intp]] | None = None
    layers: Readings = field(default_factory=Readings)
