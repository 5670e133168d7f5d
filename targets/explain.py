"""Why INT8 is not faster than float: causes read from the layers that ran, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .layers import Layer, LayerTimes

NAMED = 3  # layers in one sentence
WORTH_SAYING = 0.05  # of the time of all layers: what costs less is no cause
SMALL = 0.5  # of an inference: where the layers take less, the rest is overhead that INT8 cannot touch
GAIN = 1.15  # times faster than in float: below it a layer gained next to nothing
BYTE_PRODUCTS = ("avx_vnni", "avx512_vnni", "amx_int8", "avx_vnni_int8", "asimddp", "i8mm")
# What the environment variable ONEDNN_MAX_CPU_ISA forbids has no instruction for products of bytes.
ISA_WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")


@dataclass(frozen=True, kw_only=True)
class Twin:
    """The float version of the same network. ratio: how many times faster INT8 is, [value, low, high]."""

    name: str
    times: LayerTimes | None
    ratio: Sequence[float] | None


def causes(
    times: LayerTimes,
    twin: Twin,
    *,
    latency_ms: float | None,
    runtime: str,
    machine: Mapping[str, Any],
    environment: Mapping[str, str],
) -> list[str]:
    """Everything that holds INT8 back, the costliest first; each is half a sentence. Empty: nothing was found."""
    found = [
        *_float_fallbacks(times, twin.times),
        *_conversions(times, runtime),
        *_depthwise(times, twin.times),
        *_slower_layers(times, twin.times),
        *_overhead(times, latency_ms),
    ]
    ordered = [text for _, text in sorted(found, key=lambda cause: -cause[0])]
    return ordered + (_instructions(machine, environment) if runtime != "tensorrt" else [])


def explanation(name: str, twin: Twin, found: Sequence[str]) -> str | None:
    """`INT8 is not faster than pruned because …`; None where it is faster, or was not compared."""
    if twin.ratio is None or twin.ratio[1] > 1.0:
        return None
    value, low, high = twin.ratio
    compared = f"{value:.2f} times as fast, interval {low:.2f} to {high:.2f}"
    if not found:
        return f"INT8 is not faster than {twin.name} ({compared}), and the runtime's counters do not show why"
    return f"INT8 is not faster than {twin.name} ({compared}) because {'; '.join(found)}"


def _float_fallbacks(times: LayerTimes, twin: LayerTimes | None) -> list[tuple[float, str]]:
    layers, in_float = times.weighted(), times.weighted(precision="float")
    if not layers or not in_float:
        return []
    share = times.share(lambda layer: layer.role == "weighted" and layer.precision != "int8")
    verb = "layer with weights runs" if len(in_float) == 1 else "layers with weights run"
    text = f"{len(in_float)} of {len(layers)} {verb} in float, {_percent(share)} of the time: {_names(in_float)}"
    known = {layer.layer: layer.ms for layer in twin.weighted()} if twin is not None else {}
    pairs = [(known[layer.layer], layer.ms) for layer in in_float if layer.layer in known]
    before, now = (sum(side) for side in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    if now > GAIN * before > 0:  # cut off from their neighbours by conversions, they lose what was fused before
        text += f"; they take {now:.3g} ms here and {before:.3g} ms in the float model"
    return [(share, text)]


def _conversions(times: LayerTimes, runtime: str) -> list[tuple[float, str]]:
    found = sorted((layer for layer in times.layers if layer.role == "conversion" and layer.ms > 0), key=_cost)
    share = times.conversion_share
    left = [layer for layer in found if layer.kind in ("QuantizeLinear", "DequantizeLinear")]
    in_float = times.weighted(precision="float")
    unfused = runtime == "onnxruntime" and in_float and len(left) >= len(in_float)  # why these run in float
    if not found or (share < WORTH_SAYING and not unfused):
        return []
    text = f"{_percent(share)} of the time goes into {len(found)} conversions between precisions and layouts"
    if left and runtime == "onnxruntime":
        text += (
            f", {len(left)} of them quantise and dequantise nodes that it could not fuse into a layer "
            "(it fuses those of the flavour ort-u8: unsigned, on every edge)"
        )
    return [(share, f"{text}; the costliest: {_names(found)}")]


def _depthwise(times: LayerTimes, twin: LayerTimes | None) -> list[tuple[float, str]]:
    """A depthwise convolution reads more than it multiplies, so that cheaper products change little."""
    share = times.share(lambda layer: layer.depthwise)
    if share < WORTH_SAYING:
        return []
    text = f"{_percent(share)} of the time is depthwise convolution, which reads more than it multiplies"
    if twin is not None:
        before = sum(layer.ms for layer in twin.layers if layer.depthwise)
        now = sum(layer.ms for layer in times.layers if layer.depthwise)
        if before > GAIN * now:
            return []
        text += f" ({before:.3g} ms in float, {now:.3g} ms in INT8)"
    return [(share, text)]


def _slower_layers(times: LayerTimes, twin: LayerTimes | None) -> list[tuple[float, str]]:
    """Layers that ran in INT8 and gained nothing by it; depthwise ones have a sentence of their own."""
    if twin is None:
        return []
    before = {layer.layer: layer.ms for layer in twin.weighted()}
    ran = [layer for layer in times.weighted(precision="int8") if before.get(layer.layer) and not layer.depthwise]
    slower = [layer for layer in ran if layer.ms > before[layer.layer]]
    share = sum(layer.ms for layer in slower) / times.total_ms if times.total_ms else 0.0
    if share < WORTH_SAYING:
        return []
    shown = ", ".join(f"{layer.layer} {before[layer.layer]:.3g} to {layer.ms:.3g} ms" for layer in slower[:NAMED])
    more = f" and {len(slower) - NAMED} more" if len(slower) > NAMED else ""
    return [(share, f"{len(slower)} of {len(ran)} other INT8 layers are slower than in float: {shown}{more}")]


def _overhead(times: LayerTimes, latency_ms: float | None) -> list[tuple[float, str]]:
    if latency_ms is None or times.total_ms > SMALL * latency_ms:
        return []
    share = 1 - times.total_ms / latency_ms
    return [
        (
            share,
            f"the model is small: {_percent(share)} of an inference of {latency_ms:.3g} ms is the runtime's own work",
        )
    ]


def _instructions(machine: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    limit = environment.get("ONEDNN_MAX_CPU_ISA")
    if limit in ISA_WITHOUT_VNNI:
        return [f"it runs without VNNI (ONEDNN_MAX_CPU_ISA={limit}): sums of byte products take several instructions"]
    known = machine.get("instruction_sets")
    if known is not None and not set(known) & set(BYTE_PRODUCTS):
        return ["this CPU has no instructions for sums of byte products (VNNI, AMX, or dot products on Arm)"]
    return []


def _names(layers: Sequence[Layer]) -> str:
    shown = ", ".join(f"{layer.layer or layer.node} ({layer.kind}, {layer.ms:.3g} ms)" for layer in layers[:NAMED])
    return shown + (f" and {len(layers) - NAMED} more" if len(layers) > NAMED else "")


def _cost(layer: Layer) -> float:
    return -layer.ms


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
