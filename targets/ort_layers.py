"""The time of each layer in ONNX Runtime, from its profile."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .jobs import Engine
from .layers import CONVERSIONS, LEAST_RUNS, MOST_RUNS, SKIPPED_RUNS, Layer, LayerTimes, Role
from .ort import FLOAT_KINDS, INT8_KINDS, open_session
from .sessions import Array

KERNEL = "_kernel_time"
HELD = "mem_arena_held"  # bytes, older releases do not write it
PRECISIONS = {"float": "fp32", "float16": "fp16", "uint8": "int8", "int8": "int8", "bfloat16": "bf16"}


def times(engine: Engine, sample: Array, *, seconds: float) -> LayerTimes:
    """Run with the profile switched on, and read it."""
    with tempfile.TemporaryDirectory(prefix="edgepress-ort-") as folder:
        session = open_session(engine.path, threads=engine.threads, profile_to=Path(folder) / "profile")
        feed = {session.get_inputs()[0].name: sample}
        began, runs = time.monotonic(), 0
        while runs < LEAST_RUNS or (time.monotonic() - began < seconds and runs < MOST_RUNS):
            session.run(None, feed)
            runs += 1
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return from_events(events, runs=runs)


def from_events(events: Sequence[Mapping[str, Any]], *, runs: int) -> LayerTimes:
    """One layer for each node of the optimised graph."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith(KERNEL):
            found.setdefault(f"{event['args'].get('node_index', '')} {event['name']}", []).append(event)
    held = [int(call["args"][HELD]) for calls in found.values() for call in calls if HELD in call["args"]]
    return LayerTimes(
        layers=tuple(_layer(calls) for calls in found.values()),
        runs=runs - SKIPPED_RUNS,
        arena_mb=max(held) / 2**20 if held else None,
    )


def _layer(calls: Sequence[Mapping[str, Any]]) -> Layer:
    first = calls[0]
    kind = str(first["args"].get("op_name", ""))
    node = str(first["name"]).removesuffix(KERNEL)
    durations_us = [float(call["dur"]) for call in calls[SKIPPED_RUNS:]] or [float(first["dur"])]
    return Layer(
        node=node,
        kind=kind,
        precision=_precision(kind, first["args"]),
        ms=_middle_mean(durations_us) / 1000,
        sources=(node,),
        role=_role(kind),
    )


def _role(kind: str) -> Role:
    if kind in INT8_KINDS | FLOAT_KINDS:
        return "weighted"
    return "conversion" if kind in CONVERSIONS else "other"


def _precision(kind: str, facts: Mapping[str, Any]) -> str:
    if kind in INT8_KINDS:
        return "int8"
    outputs = facts.get("output_type_shape") or [{}]
    name = next(iter(outputs[0]), "")
    return PRECISIONS.get(name, name or "not known")


def _middle_mean(values: Sequence[float]) -> float:
    """Mean of the middle half: as steady as a median, and finer than the whole microseconds that are counted."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return float(np.mean(ordered[cut : len(ordered) - cut]))
