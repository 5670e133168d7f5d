"""Layers with the time that TensorRT's profiler counted, whether trtexec asked it or its Python package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..layers import Layer, Role
from .files import COPIED, EngineLayer


def layers(times_ms: Iterable[tuple[str, float]], engine: Sequence[EngineLayer]) -> tuple[Layer, ...]:
    """times_ms: name and mean of each layer, in the order in which they run. engine: what the inspector tells of it."""
    known = {layer.name: layer for layer in engine}
    return tuple(_layer(name, ms, known.get(name)) for name, ms in times_ms)


def _layer(name: str, ms: float, known: EngineLayer | None) -> Layer:
    """known: the same layer in the engine; TensorRT adds copies between layers that the engine does not list."""
    if known is None:
        role: Role = "conversion" if name.startswith(COPIED) else "other"
        return Layer(
            node=name, kind="Reformat" if role == "conversion" else "not told", precision="not told", ms=ms, role=role
        )
    return Layer(
        node=name,
        kind=known.kind or "not told",
        precision=known.reads if known.is_weighted else known.precision,
        ms=ms,
        sources=known.nodes,
        role="weighted" if known.is_weighted else "conversion" if known.is_conversion else "other",
    )
