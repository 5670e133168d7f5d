"""Time and precision of each layer on a board, from what its runtime counted there."""

from __future__ import annotations

import json
from typing import Any

from .. import ort_layers, ov_layers
from ..errors import DeviceError, StageError
from ..layers import LayerTimes, Readings
from ..tensorrt_tool import files, timed
from .device import Left
from .unpacking import text_of, unpacked
from .work import Work


def layers_in(work: Work, results: Left) -> Readings:
    """Of every engine that ran; nothing where the job was not to read them. Damaged files are problems, not errors."""
    found = Readings()
    if not work.manifest.get("layer_seconds"):
        return found
    for engine in work.manifest["engines"]:
        name = engine["name"]
        try:
            told = results.json(f"layers-{name}.json")
            if not isinstance(told, dict):
                continue  # the engine was not built, or did not run: that is told elsewhere
            if told.get("why"):
                found.problems[name] = str(told["why"])[:300]
                continue
            of_runtime = _of_tensorrt if work.manifest["runtime"] == "tensorrt" else _in_process
            found.times[name] = of_runtime(work.manifest["runtime"], name, told, results)
        except (DeviceError, StageError) as error:
            found.problems[name] = str(error)
    return found


def _in_process(runtime: str, name: str, told: dict[str, Any], results: Left) -> LayerTimes:
    text = unpacked(results.read(str(told.get("file"))))
    try:
        record = json.loads(text or "")
        if runtime == "onnxruntime":
            return ort_layers.from_events(record["events"], runs=int(record["runs"]))
        return ov_layers.from_counters(
            record["nodes"],
            early=record["early"],
            late=record["late"],
            skipped=int(record["skipped"]),
            runs=int(record["runs"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        raise DeviceError(f"the counters of {name} are damaged ({type(error).__name__}: {error})") from None


def _of_tensorrt(runtime: str, name: str, told: dict[str, Any], results: Left) -> LayerTimes:
    profile, info = results.read(f"profile-{name}.json"), results.read(f"layerinfo-{name}.json")
    if profile is None:
        raise StageError(f"{runtime} left no profile of {name}")
    text = text_of(profile)
    known = files.engine_layers(text_of(info)) if info is not None else ()
    layers = timed.layers([(one.name, one.ms) for one in files.layer_times(text)], known)
    return LayerTimes(layers=layers, runs=files.profiled_runs(text))
