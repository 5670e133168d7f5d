"""Devices that tests make up: how long a file takes follows from what is written in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from edgepress.targets.jobs import Engine
from edgepress.targets.probing import Probed
from edgepress.targets.statistics import Latency

Law = Callable[[onnx.ModelProto], float]


def convolutions(model: onnx.ModelProto) -> list[tuple[int, int]]:
    """Channels out and in of each convolution."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return [tuple(weights[node.input[1]][:2]) for node in model.graph.node if node.op_type == "Conv"]  # type: ignore[misc]


def in_blocks(size: int) -> Law:
    """Time goes with products of whole blocks of channels, and a part of it is always there."""

    def law(model: onnx.ModelProto) -> float:
        blocks = sum(math.ceil(out / size) * math.ceil(into / size) for out, into in convolutions(model))
        return 0.2 + 0.01 * size**2 * blocks

    return law


@dataclass
class FakeProber:
    """Answers by a law, without noise. slower: how much slower everything becomes with each question, as a share."""

    law: Law = field(default_factory=lambda: in_blocks(8))
    version: str = "1"
    slower: float = 0.0
    memory: Callable[[onnx.ModelProto], float] | None = None
    fails: Callable[[Engine], str | None] = lambda engine: None
    noise: float = 0.0  # half of what times of rounds differ by, as a share
    stops_at: int | None = None  # Ctrl-C comes with this question
    asked: list[list[str]] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"device": "made up", "runtime": "onnxruntime", "version": self.version, "threads": 1}

    def probe(
        self, engines: Sequence[Engine], *, seconds: float, memory: bool = False, told: Any = None
    ) -> Mapping[str, Probed]:
        if len(self.asked) == self.stops_at:
            raise KeyboardInterrupt
        factor = (1 + self.slower) ** len(self.asked)
        self.asked.append([engine.name for engine in engines])
        return {engine.name: self._one(engine, factor, memory) for engine in engines}

    def _one(self, engine: Engine, factor: float, memory: bool) -> Probed:
        problem = self.fails(engine)
        if problem:
            return Probed(failed=problem)
        model = onnx.load(str(engine.path))
        ms = factor * self.law(model)
        wide = 0.0 if engine.name == "baseline" else self.noise
        samples = tuple((ms * (1 + wide * (-1) ** place),) for place in range(8))
        held = self.memory(model) if memory and self.memory else None
        return Probed(latency=Latency(samples_ms=samples), memory_mb=held)
