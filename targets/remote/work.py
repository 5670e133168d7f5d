"""A job for a board: the files and the manifest that its script carries out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import model_input
from ..jobs import Engine
from ..profiles import Profile
from ..sessions import input_type
from ..tensorrt_tool.orders import as_read, orders
from .boards import BoardFacts

BUILD_SECONDS = 3600.0  # a large network takes more than half an hour on a Jetson Nano
STEP_SECONDS = 900.0
ROUNDS = 12
ANSWERED_BY_TOOL = 64  # a process for each: two seconds on a Jetson Nano
LAYER_SECONDS = 0.4  # of counting, for each engine: shares stand after a hundred inferences
SCHEMA = 1
SAMPLE = "inputs/sample.bin"  # what is timed


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
    rounds: int | None = None,
    power_mode: int | None = None,
    layers: bool = True,
    passing: Collection[str] = (),
) -> Work:
    """What a board has to do to measure these engines in turn, and to answer the inputs.

    inputs: (n, ...) as the network takes them; the first is what is timed. seconds: of timing, all engines together.
    rounds: in which TensorRT's engines are timed in turn; None: as the profile says. layers: read the time of each.
    power_mode: that the board is put into meanwhile. passing: engines that are not kept there.
    """
    rounds = rounds or int(profile.trtexec.get("rounds", ROUNDS))
    tensorrt = profile.runtime == "tensorrt"
    version = facts.tensorrt or profile.runtime_version or ""
    samples = as_read(inputs, version) if tensorrt else np.ascontiguousarray(inputs, dtype=input_type(inputs))
    models = _models(engines)
    files: dict[str, bytes | Path] = {models[engine.name]: engine.path for engine in engines}
    files[SAMPLE] = samples[:1].tobytes()
    evaluation = _evaluation(samples, files, one_by_one=is_asked_by_tool(profile, facts))
    sums = {path: _sha256(content) for path, content in files.items()}
    share = seconds / rounds / len(engines)
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "runtime": profile.runtime,
        "version": facts.tensorrt_code if tensorrt else None,
        "threads": profile.threads,
        "seconds": seconds,
        "rounds": rounds,
        "seed": seed,
        "lock_clocks": lock_clocks,
        "power_mode": power_mode,
        "layer_seconds": LAYER_SECONDS if layers else 0,
        "limits": {"build_seconds": BUILD_SECONDS, "step_seconds": STEP_SECONDS},
        "input": {"file": SAMPLE, "dtype": str(samples.dtype), "shape": list(samples[:1].shape)},
        "evaluation": evaluation,
        "engines": [
            {"name": engine.name, "model": models[engine.name], "precision": engine.precision}
            | ({"passing": True} if engine.name in passing else {})
            | (_built(engine, profile, facts, version, sums[models[engine.name]], seconds=share) if tensorrt else {})
            for engine in engines
        ],
        "files": [{"path": path, "sha256": digest} for path, digest in sums.items()],
    }
    key = hashlib.sha256(json.dumps([manifest, facts.boot_id], sort_keys=True).encode()).hexdigest()[:20]
    return Work(key=key, manifest={**manifest, "job": key}, files=files)


def is_asked_by_tool(profile: Profile, facts: BoardFacts) -> bool:
    """Does trtexec answer the samples, in a process for each? TensorRT's Python package there answers all at once."""
    by_python = "tensorrt" in facts.runtimes and bool(profile.trtexec.get("python", True))
    return profile.runtime == "tensorrt" and not by_python


def evenly(count: int, most: int) -> NDArray[np.intp]:
    """Places of at most so many samples, evenly spread: data often lie class by class."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def engine_key(content_sha256: str, flags: Sequence[str], facts: BoardFacts) -> str:
    """Of all that decides an engine: file, flags, TensorRT, GPU, and the power mode its kernels were timed in."""
    parts = [content_sha256, list(flags), facts.tensorrt, facts.model, facts.gpu, facts.power_mode]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _models(engines: Sequence[Engine]) -> dict[str, str]:
    """The file of each engine in the job's folder; two engines of one file share it."""
    first: dict[Path, str] = {}
    for engine in engines:
        first.setdefault(engine.path, f"models/{engine.name}.onnx")
    return {engine.name: first[engine.path] for engine in engines}


def _built(
    engine: Engine, profile: Profile, facts: BoardFacts, version: str, digest: str, *, seconds: float
) -> dict[str, Any]:
    """What the board needs to build an engine and to run it."""
    taken = model_input.read(engine.path)
    told = orders(
        taken,
        precision=engine.precision,
        profile=profile,
        version=version,
        sample=SAMPLE,
        seconds=max(0.5, seconds),
        warmup_seconds=0.5,
    )
    return {
        "input": taken.name,
        "key": engine_key(digest, told.build, facts),
        "timing_cache": f"{engine_key('', [], facts)}.cache",
        "build": list(told.build),
        "shapes": list(told.shapes),
        "time": list(told.time),
    }


def _evaluation(samples: NDArray[Any], files: dict[str, bytes | Path], *, one_by_one: bool) -> dict[str, Any]:
    """One file of all samples for a runtime in Python; one for each sample for a tool that is started for each."""
    if one_by_one:
        paths = [f"inputs/{number:05}.bin" for number in range(len(samples))]
        files.update({path: samples[n : n + 1].tobytes() for n, path in enumerate(paths)})
    else:
        paths = ["inputs/all.bin"]
        files[paths[0]] = samples.tobytes()
    return {"at_once": not one_by_one, "files": paths, "dtype": str(samples.dtype), "shape": list(samples.shape)}


def _sha256(content: bytes | Path) -> str:
    data = content.read_bytes() if isinstance(content, Path) else content
    return hashlib.sha256(data).hexdigest()
