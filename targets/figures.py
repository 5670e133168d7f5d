"""What a measurement found, engine by engine."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .statistics import Latency


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of one engine; None is "not measured".

    latency: one sample at a time, pinned to as many CPUs as the engine has threads. all_cores: the same with
    every core. memory_mb: resident MiB of a process that runs only this engine, after each phase (start,
    runtime, load, first, steady), and "peak". anonymous_mb: the same phases without what libraries could
    share. outputs: the first output for every image, by split. int8: what the runtime really ran in INT8.
    cold_start_ms: from the loaded runtime to the first answer. failed: why this engine is not to be used,
    whatever else was measured of it.
    """

    latency: Latency | None = None
    all_cores: Latency | None = None
    memory_mb: dict[str, float] | None = None
    anonymous_mb: dict[str, float] | None = None
    outputs: dict[str, NDArray[np.float32]] | None = None
    int8: dict[str, Any] | None = None
    cold_start_ms: float | None = None
    failed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One comparison. caveats: what weakens it, each with advice."""

    figures: dict[str, Figures]
    machine: dict[str, Any]
    caveats: list[str]
    versions: dict[str, str]
