"""A job for a board: the files and the manifest that its script carries out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..jobs import Engine
from ..profiles import Profile
from ..trt import build_flags, timing_flags
from .boards import BoardFacts

BUILD_SECONDS = 3600.0  # a large network takes more than half an hour on a Jetson Nano
STEP_SECONDS = 900.0
ROUNDS = 12
WORKSPACE_MB = 1024  # where the profile does not say
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Work:
    """files: what is sent, by path in the job's folder. key: of everything that determines the results."""

    key: str
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes | Path] = field(default_factory=dict)


def plan(
    engines: Sequence[Engine],
    *,
    profile: Profile,
    facts: BoardFacts,
    inputs: NDArray[Any],
    seconds: float,
    lock_clocks: bool = False,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> Work:
    """What a board has to do to measure these engines in turn, and to answer the inputs.

    inputs: (n, ...) as the network takes them; the first is what is timed. seconds: of timing, all engines together.
    """
    sample, name = np.ascontiguousarray(inputs[:1]), input_name(engines[0].path)
    files: dict[str, bytes | Path] = {f"models/{engine.name}.onnx": engine.path for engine in engines}
    files["inputs/sample.bin"] = sample.tobytes()
    tensorrt = profile.runtime == "tensorrt"
    evaluation = _evaluation(inputs, name, files, one_by_one=tensorrt)
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "runtime": profile.runtime,
        "threads": profile.threads,
        "seconds": seconds,
        "rounds": rounds,
        "seed": seed,
        "lock_clocks": lock_clocks,
        "limits": {"build_seconds": BUILD_SECONDS, "step_seconds": STEP_SECONDS},
        "input": {"name": name, "file": "inputs/sample.bin", "dtype": str(sample.dtype), "shape": list(sample.shape)},
        "evaluation": evaluation,
        "engines": [
            _engine(engine, profile, facts, sample, name, seconds=seconds / rounds / len(engines)) for engine in engines
        ],
        "files": [{"path": path, "sha256": _sha256(content)} for path, content in files.items()],
    }
    key = hashlib.sha256(json.dumps([manifest, facts.boot_id], sort_keys=True).encode()).hexdigest()[:20]
    return Work(key=key, manifest={**manifest, "job": key}, files=files)


def engine_key(content_sha256: str, flags: Sequence[str], facts: BoardFacts) -> str:
    """Of all that decides an engine: file, flags, TensorRT, GPU, and the power mode its kernels were timed in."""
    parts = [content_sha256, list(flags), facts.tensorrt, facts.model, facts.gpu, facts.power_mode]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def input_name(path: Path) -> str:
    """What an ONNX file calls its only input."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return str(next(entry.name for entry in graph.input if entry.name not in constants))


def _engine(
    engine: Engine, profile: Profile, facts: BoardFacts, sample: NDArray[Any], name: str, *, seconds: float
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": engine.name,
        "model": f"models/{engine.name}.onnx",
        "precision": engine.precision,
    }
    if profile.runtime != "tensorrt":
        return entry
    version = facts.tensorrt or profile.runtime_version or ""
    precisions = ["int8", "fp16"] if engine.precision == "int8" else [engine.precision]
    shapes = [f"--shapes={name}:{'x'.join(map(str, sample.shape))}"] if _has_open_batch(engine.path) else []
    workspace_mb = int(profile.trtexec.get("workspace_mb", WORKSPACE_MB))
    build = [*build_flags(version, precisions=precisions, workspace_mb=workspace_mb), *shapes]
    return entry | {
        "key": engine_key(_sha256(engine.path), build, facts),
        "timing_cache": f"{engine_key('', [], facts)}.cache",
        "build": build,
        "shapes": shapes,
        "profile": shapes,
        "time": [
            *timing_flags(version, seconds=max(0.5, seconds), warmup_seconds=0.5),
            *shapes,
            f"--loadInputs={name}:inputs/sample.bin",
        ],
    }


def _evaluation(inputs: NDArray[Any], name: str, files: dict[str, bytes | Path], *, one_by_one: bool) -> dict[str, Any]:
    """One file of all inputs for a runtime in Python; one for each sample for a tool that is started for each."""
    if one_by_one:
        paths = [f"inputs/{number:05}.bin" for number in range(len(inputs))]
        files.update({path: np.ascontiguousarray(inputs[n : n + 1]).tobytes() for n, path in enumerate(paths)})
    else:
        paths = ["inputs/all.bin"]
        files[paths[0]] = np.ascontiguousarray(inputs).tobytes()
    return {"input": name, "files": paths, "dtype": str(inputs.dtype), "shape": list(inputs.shape)}


def _has_open_batch(path: Path) -> bool:
    import onnx

    entry = onnx.load(str(path), load_external_data=False).graph.input[0]
    return not entry.type.tensor_type.shape.dim[0].HasField("dim_value")


def _sha256(content: bytes | Path) -> str:
    data = content.read_bytes() if isinstance(content, Path) else content
    return hashlib.sha256(data).hexdigest()
