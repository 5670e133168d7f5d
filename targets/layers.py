"""Where the time of one inference goes, layer by layer, and in which precision each layer really ran."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import child
from .jobs import SAMPLE, Engine, Job
from .sessions import Array, input_type

Role = Literal["weighted", "conversion", "other"]

LEAST_RUNS = 30
SKIPPED_RUNS = 5  # the first ones build kernels and fill caches
MOST_RUNS = 2000  # beyond it the record of ONNX Runtime grows to hundreds of megabytes

# What a runtime puts between layers of different precision or memory layout.
CONVERSIONS = frozenset(
    {
        "Reorder",
        "Convert",
        "FakeQuantize",
        "QuantizeLinear",
        "DequantizeLinear",
        "ReorderInput",
        "ReorderOutput",
        "Cast",
    }
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One node that the runtime executed. sources: names in the exported file of what was fused into it.

    ms: of one inference. The runtimes count whole microseconds, and OpenVINO what is below one as nothing.
    """

    node: str
    kind: str
    precision: str
    ms: float
    sources: tuple[str, ...] = ()
    role: Role = "other"
    layer: str = ""  # its name in the user's model, as far as it can be traced
    depthwise: bool = False


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Every layer of one engine, in the order in which they ran.

    arena_mb: MiB that the runtime's own allocator held at most, weights included; None where it does not tell.
    """

    layers: tuple[Layer, ...]
    runs: int
    arena_mb: float | None = None

    @property
    def total_ms(self) -> float:
        return sum(layer.ms for layer in self.layers)

    def share(self, wanted: Callable[[Layer], bool]) -> float:
        """0 to 1: of the layers' time, what the wanted ones took."""
        total = self.total_ms
        return sum(layer.ms for layer in self.layers if wanted(layer)) / total if total else 0.0

    @property
    def int8_share(self) -> float:
        """Of the time: spent computing in INT8. Conversions are no computation."""
        return self.share(lambda layer: layer.precision == "int8" and layer.role != "conversion")

    @property
    def conversion_share(self) -> float:
        return self.share(lambda layer: layer.role == "conversion")

    def weighted(self, *, precision: Literal["int8", "float", "any"] = "any") -> tuple[Layer, ...]:
        """Convolutions and matrix products, the costliest first."""
        found = [layer for layer in self.layers if layer.role == "weighted"]
        if precision != "any":
            found = [layer for layer in found if (layer.precision == "int8") == (precision == "int8")]
        return tuple(sorted(found, key=lambda layer: -layer.ms))


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What `measure_layers` found. problems: why, for each engine that could not be read."""

    times: dict[str, LayerTimes] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def measure_layers(
    engines: Sequence[Engine],
    *,
    sample: Array,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 300.0,
    progress: Callable[[str, float], None] = lambda text, share: None,
) -> Readings:
    """Read the runtime's own counters in a pinned process; an engine that takes it down costs the others nothing.

    Apart from the comparison of latencies on purpose: counting costs time, and more in some layers than in others.
    sample: one image, with a batch of 1. seconds: for each engine.
    """
    found = Readings()
    with tempfile.TemporaryDirectory(prefix="edgepress-layers-") as name:
        folder = Path(name)
        np.save(folder / SAMPLE, np.ascontiguousarray(sample[:1], dtype=input_type(sample)))
        left = list(engines)
        while left:
            outcome = child.run(
                Job(mode="layers", engines=tuple(left), seconds=seconds),
                folder,
                environment=environment or {},
                timeout_seconds=timeout_seconds,
                progress=progress,
            )
            if outcome.interrupted:
                raise KeyboardInterrupt
            found.problems.update(outcome.failed)
            if outcome.result is not None:
                found.times.update({name: unpack(values) for name, values in outcome.result["layers"].items()})
                break
            guilty = {outcome.at} if outcome.at else {engine.name for engine in left}
            found.problems.update({str(name): str(outcome.died) for name in guilty})
            left = [engine for engine in left if engine.name not in found.problems]
    return found


def read(engine: Engine, sample: Array, *, seconds: float) -> LayerTimes:
    """The counters of one engine, in this process. StageError or RuntimeMissingError: there are none."""
    from .ort_layers import times as of_onnxruntime
    from .ov_layers import times as of_openvino
    from .trt_here import times as of_tensorrt

    readers = {"onnxruntime": of_onnxruntime, "openvino": of_openvino, "tensorrt": of_tensorrt}
    return readers[engine.runtime](engine, sample, seconds=seconds)


def in_int8(weighted: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """What runs in INT8, in the words of `Target.int8_layers`. weighted: name, kind and precision of each layer."""
    kinds: dict[str, int] = {}
    for _, kind, precision in weighted:
        kinds[f"{kind} {precision}"] = kinds.get(f"{kind} {precision}", 0) + 1
    left = [name for name, _, precision in weighted if precision != "int8"]
    return {
        "int8_layers": len(weighted) - len(left),
        "weighted_layers": len(weighted),
        "kinds": kinds,
        "float_layers": left,
    }


def pack(times: LayerTimes) -> dict[str, Any]:
    return asdict(times)


def unpack(values: Mapping[str, Any]) -> LayerTimes:
    layers = tuple(Layer(**{**layer, "sources": tuple(layer["sources"])}) for layer in values["layers"])
    return LayerTimes(layers=layers, runs=values["runs"], arena_mb=values["arena_mb"])


def facts(times: LayerTimes) -> dict[str, Any]:
    """The report's form: every layer that multiplies or was seen to take time, the costliest first."""
    total = times.total_ms
    seen = (layer for layer in times.layers if layer.ms > 0 or layer.role == "weighted")
    shown = sorted(seen, key=lambda layer: -layer.ms)
    return {
        "total_ms": total,
        "runs": times.runs,
        "int8_share": times.int8_share,
        "conversion_share": times.conversion_share,
        "arena_mb": times.arena_mb,
        "layers": [
            {
                "layer": layer.layer or layer.node,
                "type": f"{layer.kind}, depthwise" if layer.depthwise else layer.kind,
                "precision": layer.precision,
                "role": layer.role,
                "ms": layer.ms,
                "share": layer.ms / total if total else 0.0,
            }
            for layer in shown
        ],
    }
