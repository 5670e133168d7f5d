"""Measure exported models in the runtime that will run them: latency in turn, answers, memory.

result = measure([Engine(name="fp32", path=Path("model.onnx"), runtime="onnxruntime", precision="fp32")],
                 inputs={"test": images}, timeout_seconds=120)
result.figures["fp32"].latency.median_ms
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import child, cpu
from .caveats import caveats
from .errors import RecipeError
from .figures import Figures, Measurement
from .jobs import SAMPLE, Engine, Job, unpack
from .runtimes import target

__all__ = ["Engine", "Figures", "Measurement", "measure"]

ALL_CORES_SHARE = 0.4  # of the pinned run's seconds: a second opinion, not what is decided on
MOST_WARMUP_SECONDS = 2.0  # for each engine

Progress = Callable[[str, float], None]


@dataclass(kw_only=True)
class _Run:
    """What all parts of one measurement share, and what they found so far."""

    folder: Path
    inputs: Mapping[str, NDArray[np.float32]]
    seconds: float
    seed: int
    environment: Mapping[str, str]
    timeout_seconds: float
    progress: Progress
    figures: dict[str, Figures]
    caveats: list[str] = field(default_factory=list)
    pinned_cpus: list[int] = field(default_factory=list)
    furthest: float = 0.0

    def tell(self, text: str, share: float) -> None:
        """Progress never goes back, though an engine that crashes makes the others start again."""
        self.furthest = max(self.furthest, share)
        self.progress(text, self.furthest)

    def add(self, name: str, **values: Any) -> None:
        self.figures[name] = replace(self.figures[name], **values)

    def alive(self, engines: Sequence[Engine]) -> list[Engine]:
        return [engine for engine in engines if self.figures[engine.name].failed is None]


def measure(
    engines: Sequence[Engine],
    *,
    inputs: Mapping[str, NDArray[np.float32]],
    seconds: float = 10.0,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 300.0,
    all_cores: bool = True,
    memory: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measurement:
    """Compare engines on this machine, in fresh processes that die with this one.

    inputs: images as the model takes them, (n, ...), by split; the first image of the first split is what is
    timed. seconds: of timing on pinned CPUs, warm-up not counted. environment: added to the processes' own.
    timeout_seconds: how long an engine may stay silent before it counts as hanging. progress: told a few
    words and a share, 0 to 1.

    An engine that fails, crashes, hangs, or answers with NaN or in another shape does not cost the others
    their figures: its own `failed` says why.
    """
    _check(engines, inputs)
    machine = cpu.describe()
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        run = _Run(
            folder=Path(folder),
            inputs=inputs,
            seconds=seconds,
            seed=seed,
            environment=environment or {},
            timeout_seconds=timeout_seconds,
            progress=progress or (lambda text, share: None),
            figures={engine.name: Figures() for engine in engines},
        )
        _write_inputs(run)
        _measure_pinned(run, engines)
        if all_cores and machine["usable_cores"] > 1:
            _measure_all_cores(run, run.alive(engines))
        if memory:
            _measure_memory(run, run.alive(engines))
    machine["pinned_cpus"] = run.pinned_cpus
    timed = {name: figures.latency for name, figures in run.figures.items() if figures.latency}
    return Measurement(
        figures=run.figures,
        machine=machine,
        caveats=[*run.caveats, *caveats(timed, machine)],
        versions={engine.runtime: target(engine.runtime).version() for engine in engines},
    )


def _check(engines: Sequence[Engine], inputs: Mapping[str, NDArray[np.float32]]) -> None:
    names = [engine.name for engine in engines]
    if not names or len(set(names)) < len(names):
        raise RecipeError(f"engines need names of their own, and there must be one at least: {names}")
    if not inputs or any(len(images) == 0 for images in inputs.values()):
        raise RecipeError("there is nothing to measure with: every split needs one image at least")
    for engine in engines:
        target(engine.runtime)
        if engine.threads < 1:
            raise RecipeError(f"engine {engine.name}: threads is {engine.threads} and must be 1 or more")


def _write_inputs(run: _Run) -> None:
    for index, images in enumerate(run.inputs.values()):
        np.save(run.folder / f"split-{index}.npy", np.asarray(images, dtype=np.float32))
    first = next(iter(run.inputs.values()))
    np.save(run.folder / SAMPLE, np.ascontiguousarray(first[:1], dtype=np.float32))


def _job(run: _Run, mode: Any, engines: Sequence[Engine], *, seconds: float, splits: Mapping[str, str]) -> Job:
    return Job(
        mode=mode,
        engines=tuple(engines),
        splits=splits,
        seconds=seconds,
        warmup_seconds=min(MOST_WARMUP_SECONDS, seconds / len(engines)),
        seed=run.seed,
    )


def _do(run: _Run, job: Job, *, start: float, end: float) -> child.Outcome:
    """Do a job; its progress runs from `start` to `end` of the whole."""
    return child.run(
        job,
        run.folder,
        environment=run.environment,
        timeout_seconds=run.timeout_seconds,
        progress=lambda text, share: run.tell(text, start + (end - start) * share),
    )


def _measure_pinned(run: _Run, engines: Sequence[Engine]) -> None:
    """Latency and answers. One that takes the process down is left out and the rest measured again."""
    splits = {name: f"split-{index}.npy" for index, name in enumerate(run.inputs)}
    while engines := run.alive(engines):
        job = _job(run, "pinned", engines, seconds=run.seconds, splits=splits)
        outcome = _do(run, job, start=0.0, end=0.7)
        if outcome.result is not None:
            _keep_pinned(run, job, outcome.result, outcome.failed)
            return
        for name, why in outcome.failed.items():
            run.add(name, failed=why)
        guilty = [outcome.at] if outcome.at else [engine.name for engine in engines]
        for name in guilty:
            run.add(name, failed=run.figures[name].failed or outcome.died)


def _keep_pinned(run: _Run, job: Job, result: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    run.pinned_cpus = result["pinned_cpus"]
    for engine in job.engines:
        latency = result["latency"].get(engine.name)
        files = result["answers"].get(engine.name)
        run.add(
            engine.name,
            latency=unpack(latency) if latency else None,
            outputs={split: np.load(run.folder / file) for split, file in zip(job.splits, files, strict=True)}
            if files
            else None,
            int8=result["int8"].get(engine.name),
            failed=failed.get(engine.name),
        )


def _measure_all_cores(run: _Run, engines: Sequence[Engine]) -> None:
    """A failure here costs this figure alone: the pinned run has shown that the engine works."""
    left = list(engines)
    while left:
        job = _job(run, "all_cores", left, seconds=run.seconds * ALL_CORES_SHARE, splits={})
        outcome = _do(run, job, start=0.7, end=0.85)
        for name, why in outcome.failed.items():
            run.caveats.append(f"{name} was not timed on all cores: {why}.")
        if outcome.result is not None:
            for name, latency in outcome.result["latency"].items():
                run.add(name, all_cores=unpack(latency))
            return
        guilty = {outcome.at} if outcome.at else {engine.name for engine in left}
        run.caveats.extend(
            f"{name} was not timed on all cores: {outcome.died}." for name in sorted(guilty - {None}, key=str)
        )
        left = [engine for engine in left if engine.name not in guilty | set(outcome.failed)]


def _measure_memory(run: _Run, engines: Sequence[Engine]) -> None:
    """One fresh process for each engine: what another engine left behind would be counted with it."""
    for number, engine in enumerate(engines):
        start, step = 0.85 + 0.15 * number / len(engines), 0.15 / len(engines)
        job = _job(run, "memory", [engine], seconds=0.0, splits={})
        outcome = _do(run, job, start=start, end=start + step)
        if not outcome.result:
            why = outcome.died or outcome.failed.get(engine.name, "its process left no result")
            run.caveats.append(f"The memory of {engine.name} was not measured: {why}.")
            continue
        phases = outcome.result["phases"]
        run.add(
            engine.name,
            memory_mb=_by_phase(phases, "resident") | {"peak": phases["steady"]["peak"]}
            if "peak" in phases["steady"]
            else None,
            anonymous_mb=_by_phase(phases, "anonymous") or None,
            cold_start_ms=outcome.result["cold_start_ms"],
        )


def _by_phase(phases: Mapping[str, Mapping[str, float]], kind: str) -> dict[str, float]:
    return {phase: round(seen[kind], 3) for phase, seen in phases.items() if kind in seen}
