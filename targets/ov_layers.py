"""The time of each layer in OpenVINO, from its counters and the graph that it really executes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from .jobs import Engine
from .layers import CONVERSIONS, LEAST_RUNS, SKIPPED_RUNS, Layer, LayerTimes, Role
from .ov import WEIGHTED_KINDS, compile_file
from .sessions import Array

PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
NOT_RUN = frozenset({"Input", "Output", "Const"})
ROUNDING = "QuantizeLinear"  # in the names of what becomes a kernel of its own that only rounds


def times(engine: Engine, sample: Array, *, seconds: float) -> LayerTimes:
    """Run with the counters switched on, and read them."""
    compiled = compile_file(engine.path, precision=engine.precision, threads=engine.threads, counters=True)
    request = compiled.create_infer_request()
    for _ in range(SKIPPED_RUNS):
        request.infer(sample, share_inputs=True)
    early = _counters(request)
    began, runs = time.monotonic(), SKIPPED_RUNS
    while runs < LEAST_RUNS or time.monotonic() - began < seconds:
        request.infer(sample, share_inputs=True)
        runs += 1
    nodes = [_node(node) for node in compiled.get_runtime_model().get_ordered_ops()]
    return from_counters(nodes, early=early, late=_counters(request), skipped=SKIPPED_RUNS, runs=runs)


def from_counters(
    nodes: Sequence[tuple[str, str, str, str]],
    *,
    early: Mapping[str, float],
    late: Mapping[str, float],
    skipped: int,
    runs: int,
) -> LayerTimes:
    """One layer for each node that was executed.

    nodes: name, kind, precision and names in the file, of each. early: mean microseconds of the skipped runs. late:
    of all runs, these among them.
    """
    spent_us = {  # the counters are means since the start: take the first runs out again
        node: max(0.0, (mean * runs - early.get(node, 0.0) * skipped) / (runs - skipped)) for node, mean in late.items()
    }
    layers = [_layer(*node, spent_us) for node in nodes]
    return LayerTimes(layers=tuple(layer for layer in layers if layer is not None), runs=runs - skipped)


def _counters(request: Any) -> dict[str, float]:
    """Mean microseconds of each node so far."""
    return {entry.node_name: entry.real_time.total_seconds() * 1e6 for entry in request.profiling_info}


def _node(node: Any) -> tuple[str, str, str, str]:
    info = node.get_rt_info()
    kind, runs_in, names = (_text(info, key) for key in ("layerType", "runtimePrecision", "originalLayersNames"))
    return node.get_friendly_name(), kind, runs_in, names


def _layer(name: str, kind: str, runs_in: str, names: str, spent_us: Mapping[str, float]) -> Layer | None:
    if kind in NOT_RUN or name not in spent_us:
        return None
    sources = tuple(part for part in names.split(",") if part)
    return Layer(
        node=name,
        kind=kind,
        precision=PRECISIONS.get(runs_in, runs_in or "not known"),
        ms=spent_us[name] / 1000,
        sources=sources,
        role=_role(kind, sources),
    )


def _role(kind: str, sources: tuple[str, ...]) -> Role:
    if kind in WEIGHTED_KINDS:
        return "weighted"
    only_rounds = bool(sources) and all(ROUNDING in source for source in sources)
    return "conversion" if kind in CONVERSIONS or only_rounds else "other"


def _text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else ""
