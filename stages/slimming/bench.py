"""Candidates as the files that would be shipped, measured in turn with the network that they replace."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ...targets.errors import StageError
from ...targets.jobs import Engine
from ...targets.probing import Probed, Prober
from ...targets.profiles import Precision
from ...targets.statistics import ratio

BASELINE = "baseline"
Write = Callable[[nn.Module, Path], None]  # one network as a file
Told = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class Form:
    """In what precision a network would be shipped. write: how it becomes a file."""

    name: Precision
    write: Write


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One candidate beside the float baseline of the same run.

    share: its time as a share of the baseline's, with the 95 % interval. ms, most_ms: its median, and the end of the
    interval. memory_mb: None where it was not asked for.
    """

    share: float
    low: float
    high: float
    ms: float
    most_ms: float
    baseline_ms: float
    size_bytes: int
    memory_mb: float | None = None

    @property
    def half_width(self) -> float:
        """Half the interval, as a share of the value."""
        return (self.high - self.low) / 2 / self.share


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A prober with a baseline. plain: how the float baseline is written."""

    prober: Prober
    baseline: nn.Module
    plain: Form

    def measure(
        self,
        candidates: Mapping[str, tuple[nn.Module, Form]],
        *,
        seconds: float,
        memory: bool = False,
        told: Told = lambda text, share: None,
    ) -> dict[str, Seen]:
        """What each candidate shows; one that fails is left out. StageError: the baseline cannot be measured."""
        with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
            every = {BASELINE: (self.baseline, self.plain), **candidates}
            engines, sizes, identity = [], {}, self.prober.identity
            for place, (name, (module, form)) in enumerate(every.items()):
                path = Path(folder) / f"{place}.onnx"
                form.write(module, path)
                told(f"exporting {name}", 0.4 * place / len(every))
                sizes[name] = path.stat().st_size
                engines.append(
                    Engine(
                        name=name,
                        path=path,
                        runtime=str(identity["runtime"]),
                        precision=form.name,
                        threads=int(identity["threads"]),
                    )
                )
            found = self.prober.probe(
                engines, seconds=seconds, memory=memory, told=lambda text, share: told(text, 0.4 + 0.6 * share)
            )
        baseline = found[BASELINE]
        if baseline.latency is None:
            raise StageError(f"the unpruned network cannot be timed, so nothing can be pruned to a time: "
                             f"{baseline.failed}")  # fmt: skip
        return {name: _seen(baseline, one, sizes[name]) for name, one in found.items() if one.latency is not None}


def _seen(baseline: Probed, one: Probed, size_bytes: int) -> Seen:
    assert baseline.latency is not None
    assert one.latency is not None
    if one is baseline:
        low = value = high = 1.0
    else:
        times = ratio(baseline.latency, one.latency)
        value, low, high = 1 / times.value, 1 / times.high, 1 / times.low
    return Seen(
        share=value, low=low, high=high, ms=one.latency.median_ms, most_ms=one.latency.median_ci95_ms[1],
        baseline_ms=baseline.latency.median_ms, size_bytes=size_bytes, memory_mb=one.memory_mb,
    )  # fmt: skip
