"""The JSON files that trtexec writes: samples, time by layer, and what the layers of an engine compute in.

Formats: sampleReporting.cpp of releases 8.2 to 11.1 and the engine inspector. Names in them are not escaped and a mean
of nothing is `nan`, so they are read with care; whatever is in a file, the answer is a value or a StageError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StageError

MOST_BYTES = 256 * 2**20
NAME = re.compile(r'("name" : ")(.*)(", "timeMs" : )')
# What a layer does, by words in its kind: these changed between releases, as did their spelling.
WEIGHTED = re.compile(r"convolution|\bconv\b|gemm|fully_?connected|matrix_?multiply|matmul", re.IGNORECASE)
CONVERSION = re.compile(r"reformat|quantize|^cast$", re.IGNORECASE)
COPIED = "Reformatting CopyNode"
IN_METADATA = re.compile(r"\[ONNX Layer: ([^\]]*)\]")  # TensorRT 8.6 and newer
PRECISIONS = {"int8": "int8", "bf16": "bf16", "fp16": "fp16", "half": "fp16", "fp32": "fp32", "float": "fp32"}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """One value for each inference, in milliseconds. latency: copies to and from the GPU included."""

    compute_ms: tuple[float, ...]
    latency_ms: tuple[float, ...]
    started_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """Mean milliseconds of one layer in one inference."""

    name: str
    ms: float


@dataclass(frozen=True, kw_only=True)
class EngineLayer:
    """A layer of a built engine. precision: of what it reads and writes; "mixed" where they differ.

    reads: precision of its first input, which is what a layer with weights computes in. nodes: of the ONNX file, as far
    as it names them.
    """

    name: str
    kind: str
    precision: str
    reads: str
    nodes: tuple[str, ...] = ()
    tactic: str | None = None

    @property
    def is_weighted(self) -> bool:
        return WEIGHTED.search(self.kind) is not None

    @property
    def is_conversion(self) -> bool:
        """Does it only change precision or memory layout?"""
        return CONVERSION.search(self.kind) is not None or self.name.startswith(COPIED)


def samples(text: str, *, warmup_ms: float) -> Samples:
    """`--exportTimes`. warmup_ms: what was asked for; up to 8.4 the file holds the warm-up too, and it is dropped."""
    kept = []
    for entry in _list(text, "the file of samples"):
        values = [_number(entry, key) for key in ("startComputeMs", "computeMs", "latencyMs")]
        if None not in values:
            kept.append([float(value) for value in values if value is not None])
    if kept and kept[0][0] < warmup_ms:
        kept = [entry for entry in kept if entry[0] >= warmup_ms] or kept
    if not kept:
        raise StageError("the file of samples holds none: the run was cut off before its first inference")
    started, compute, latency = zip(*kept, strict=True)
    return Samples(compute_ms=compute, latency_ms=latency, started_ms=started)


def layer_times(text: str) -> tuple[LayerTime, ...]:
    """`--exportProfile`: layers in the order in which they run."""
    found = []
    for entry in _list(_escape(text), "the profile"):
        ms = _number(entry, "averageMs")
        if isinstance(entry.get("name"), str) and ms is not None:
            found.append(LayerTime(name=entry["name"], ms=ms))
    return tuple(found)


def profiled_runs(text: str) -> int:
    """`--exportProfile`: how many inferences its means are of; 0 where it does not tell."""
    return int(next((count for entry in _list(_escape(text), "the profile") if (count := _number(entry, "count"))), 0))


def engine_layers(text: str) -> tuple[EngineLayer, ...]:
    """`--exportLayerInfo` of an engine that was built with detailed profiling; otherwise it names layers only."""
    data = _json(text, "the list of layers")
    layers = data.get("Layers") if isinstance(data, dict) else None
    if not isinstance(layers, list):
        raise StageError("the list of layers holds no `Layers`: it is not what the engine inspector writes")
    return tuple(_engine_layer(layer) for layer in layers if isinstance(layer, (dict, str)))


def _engine_layer(layer: Mapping[str, Any] | str) -> EngineLayer:
    if isinstance(layer, str):
        return EngineLayer(name=layer, kind="", precision="not told", reads="not told", nodes=_nodes(layer, ""))
    inputs, outputs = _precisions(layer.get("Inputs")), _precisions(layer.get("Outputs"))
    kinds = {*inputs, *outputs}
    tactic, name = layer.get("TacticName") or layer.get("TacticValue"), str(layer.get("Name", ""))
    return EngineLayer(
        name=name,
        kind=str(layer.get("ParameterType") or layer.get("LayerType") or ""),
        precision=kinds.pop() if len(kinds) == 1 else ("mixed" if kinds else "not told"),
        reads=(inputs or outputs or ["not told"])[0],
        nodes=_nodes(name, str(layer.get("Metadata", ""))),
        tactic=str(tactic) if tactic else None,
    )


def _nodes(name: str, metadata: str) -> tuple[str, ...]:
    """A fused layer is called after all that it was made of: `/conv/Conv + /relu/Relu`."""
    if name.startswith(COPIED):
        return ()
    return tuple(dict.fromkeys([*IN_METADATA.findall(metadata), *name.split(" + ")]))


def _precisions(tensors: object) -> list[str]:
    return [found for words in _tensors(tensors) if (found := _precision(words))]


def _tensors(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    return [str(tensor.get("Format/Datatype", "")) for tensor in value if isinstance(tensor, dict)]


def _precision(words: str) -> str | None:
    lowered = words.lower()
    return next((precision for word, precision in PRECISIONS.items() if word in lowered), None)


def _list(text: str, what: str) -> Sequence[Mapping[str, Any]]:
    data = _json(text, what)
    if not isinstance(data, list):
        raise StageError(f"{what} is no list: it is not what trtexec writes")
    return [entry for entry in data if isinstance(entry, dict)]


def _json(text: str, what: str) -> Any:
    if len(text) > MOST_BYTES:
        raise StageError(f"{what} is larger than {MOST_BYTES >> 20} MiB")
    try:
        return json.loads(text.replace(" nan", " null").replace("-null", "null"))
    except (ValueError, RecursionError) as error:
        raise StageError(f"{what} is damaged or cut off ({error}): run that step again") from None


def _number(entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if usable else None  # type: ignore[arg-type]


def _escape(profile: str) -> str:
    return NAME.sub(lambda found: found[1] + _escaped(found[2]) + found[3], profile)


def _escaped(name: str) -> str:
    return json.dumps(json.loads(f'"{name}"') if _is_escaped(name) else name)[1:-1]


def _is_escaped(name: str) -> bool:
    try:
        json.loads(f'"{name}"')
    except ValueError:
        return False
    return True
