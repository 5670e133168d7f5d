"""What the figures alone do not tell: where the time of each engine goes, and where a bad one goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ..targets import explain as reasons
from ..targets import layers, tracing
from ..targets.jobs import Engine
from ..targets.layers import LayerTimes, Readings
from ..targets.profiles import Profile
from .artifact import ExportedFile
from .divergence import Divergence, find_divergence
from .exporting import float_twin
from .twins import WORDS, variant_of

SECONDS_EACH = 0.4  # of counting: shares stand after a hundred inferences
DIVERGENCE_IMAGES = 32
ACCURACY_GAP = 1.0  # points between torch and the runtime: rounding moves single images, not that many

Facts = Mapping[str, Any]


def read_layers(
    engines: Sequence[Engine],
    measured: Mapping[str, Facts],
    *,
    images: NDArray[Any],
    profile: Profile,
    progress: Callable[[str, float], None],
) -> Readings:
    """Of all engines that run, on this machine. images: the first is what is run layer by layer."""
    return layers.measure_layers(
        [engine for engine in engines if not measured[engine.name].get("failed")],
        sample=images[:1],
        seconds=SECONDS_EACH,
        environment=profile.environment,
        progress=progress,
    )


def explain(
    measured: Mapping[str, Facts],
    ratios: Mapping[str, Mapping[str, Sequence[float]]],
    readings: Readings,
    *,
    files: Sequence[ExportedFile],
    images: NDArray[Any] | None,
    machine: Facts,
    profile: Profile,
) -> dict[str, dict[str, Any]]:
    """More facts of each engine: `layers`, `causes` and `explanation` of a slow INT8 one, `divergence` of a wrong one.

    measured: what is known of each engine so far. readings: what its layers took, here or on a board. images: real
    ones; without them nothing is said of wrong answers.
    """
    file_of = {name: file for name in measured for file in files if variant_of(name) == file.variant}
    times = {
        name: tracing.trace(found, file_of[name].onnx) for name, found in readings.times.items() if name in file_of
    }
    more: dict[str, dict[str, Any]] = {name: {} for name in measured}
    for name, found in times.items():
        more[name]["layers"] = layers.facts(found)
    for name in more.keys() & readings.problems.keys():
        more[name]["layers_missing"] = readings.problems[name]
    for file in files:
        if file.precision != "int8" or file.variant not in measured:
            continue
        more[file.variant] |= _why_slow(file, times, measured, ratios, files, machine, profile)
        wrong = _divergence(file, measured, files, images) if images is not None else None
        if wrong is not None:
            more[file.variant]["divergence"] = wrong
    return more


def _why_slow(
    file: ExportedFile,
    times: Mapping[str, LayerTimes],
    measured: Mapping[str, Facts],
    ratios: Mapping[str, Mapping[str, Sequence[float]]],
    files: Sequence[ExportedFile],
    machine: Facts,
    profile: Profile,
) -> dict[str, Any]:
    """Against the fastest float version of the same network."""
    name = file.variant
    float_file = float_twin(name, files)
    if name not in times or float_file is None:
        return {}
    compared = {
        twin: ratios[twin][name]
        for twin in (float_file.variant, *(f"{float_file.variant}-{kind}" for kind in WORDS))
        if name in ratios.get(twin, {})
    }
    if not compared:
        return {}
    rival = min(compared, key=lambda twin: compared[twin][0])
    twin = reasons.Twin(name=rival, times=times.get(rival), ratio=compared[rival])
    latency = measured[name].get("latency")
    found = reasons.causes(
        times[name],
        twin,
        latency_ms=latency["median"] if latency else None,
        runtime=profile.measures_with,
        machine=machine,
        environment=profile.environment if profile.device in {"local", "none"} else {},
    )
    sentence = reasons.explanation(name, twin, found)
    return {"explanation": sentence, "causes": found} if sentence else {}


def _divergence(
    file: ExportedFile, measured: Mapping[str, Facts], files: Sequence[ExportedFile], images: NDArray[Any]
) -> dict[str, Any] | None:
    """Which layer is to blame, where the answers are not those of torch or far worse than in float."""
    facts = measured[file.variant]
    twin = float_twin(file.variant, files)
    unlike_torch = _is_unlike_torch(file, facts)
    if twin is None or not (unlike_torch or _is_far_worse(facts, measured.get(twin.variant))):
        return None
    found = find_divergence(twin.onnx, file.onnx, images[:DIVERGENCE_IMAGES])
    if found.first is None and not unlike_torch:
        return None  # it is less accurate, no file is broken
    return found.facts() | {"sentence": _sentence(found, file, facts)}


def _is_unlike_torch(file: ExportedFile, facts: Facts) -> bool:
    parity, real, simulated = facts.get("parity"), facts.get("accuracy"), facts.get("torch_accuracy")
    fails = bool(parity and not parity.get("ok", True)) or not file.parity.get("ok", True)
    return fails or bool(real and simulated is not None and simulated - real["value"] > ACCURACY_GAP)


def _is_far_worse(facts: Facts, twin: Facts | None) -> bool:
    real, before = facts.get("accuracy"), (twin or {}).get("accuracy")
    return bool(real and before and before["value"] - real["value"] > ACCURACY_GAP)


def _sentence(found: Divergence, file: ExportedFile, facts: Facts) -> str:
    if found.first is not None or not file.parity.get("ok", True):
        return found.sentence()
    agreement = 100 * (facts.get("parity") or {}).get("argmax_agreement", 0.0)
    return (
        f"the exported file answers as torch does in ONNX Runtime, and only {agreement:.1f} % of the answers "
        "agree in the target's runtime: it is the runtime that departs, for example by sums of 8-bit products "
        f"that saturate; {found.sentence()}"
    )
