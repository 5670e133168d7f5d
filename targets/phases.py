"""The parts of a measurement, each in fresh processes: what one part loses, the others keep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import child, energy, jetson
from .caveats import Caveat
from .figures import Figures
from .jobs import Engine, Job, unpack
from .sessions import Array

ALL_CORES_SHARE = 0.4  # of the pinned run's seconds: a second opinion, not what is decided on
MOST_WARMUP_SECONDS = 2.0  # for each engine

Progress = Callable[[str, float], None]


@dataclass(kw_only=True)
class Run:
    """What all parts of one measurement share, and what they found so far."""

    folder: Path
    inputs: Mapping[str, Array]
    seconds: float
    seed: int
    environment: Mapping[str, str]
    timeout_seconds: float
    progress: Progress
    figures: dict[str, Figures]
    batch: int = 1
    sustained_seconds: float = 0.0
    caveats: list[Caveat] = field(default_factory=list)
    during: dict[str, Any] | None = None
    pinned_cpus: list[int] = field(default_factory=list)
    sustained: dict[str, Any] | None = None
    not_measured: dict[str, str] = field(default_factory=dict)
    incomplete: str | None = None
    span: tuple[float, float] = (0.0, 1.0)
    furthest: float = 0.0

    def tell(self, text: str, share: float) -> None:
        """Progress never goes back, though an engine that crashes makes the others start again."""
        self.furthest = max(self.furthest, share)
        self.progress(text, self.furthest)

    def add(self, name: str, **values: Any) -> None:
        self.figures[name] = replace(self.figures[name], **values)

    def miss(self, sentence: str) -> None:
        """Say what one engine lacks."""
        self.caveats.append(Caveat(kind="missing", sentence=sentence, advice=""))

    def alive(self, engines: Sequence[Engine]) -> list[Engine]:
        return [engine for engine in engines if self.figures[engine.name].failed is None]


def pinned(run: Run, engines: Sequence[Engine]) -> None:
    """Latency and answers. One that takes the process down is left out and the rest measured again."""
    splits = {name: f"split-{index}.npy" for index, name in enumerate(run.inputs)}
    while engines := run.alive(engines):
        job = _job(run, "pinned", engines, seconds=run.seconds, splits=splits)
        outcome = _do(run, job, what="the latency")
        if outcome.result is not None:
            _keep_pinned(run, job, outcome.result, outcome.failed)
            return
        if run.incomplete:
            return
        for name, why in outcome.failed.items():
            run.add(name, failed=why)
        guilty = [outcome.at] if outcome.at else [engine.name for engine in engines]
        for name in guilty:
            run.add(name, failed=run.figures[name].failed or outcome.died)


def _keep_pinned(run: Run, job: Job, result: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    run.pinned_cpus, run.during = result["pinned_cpus"], result["during"]
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


def all_cores(run: Run, engines: Sequence[Engine]) -> None:
    """Every core at work."""
    _one_figure(run, engines, mode="all_cores", figure="all_cores", words="on all cores")


def batches(run: Run, engines: Sequence[Engine]) -> None:
    """Whole batches, where the model leaves its batch axis open."""
    _one_figure(run, engines, mode="batch", figure="batched", words=f"with batches of {run.batch}")


def _one_figure(run: Run, engines: Sequence[Engine], *, mode: str, figure: str, words: str) -> None:
    """A failure here costs this figure alone: the pinned run has shown that the engine works."""
    left = list(engines)
    while left and run.incomplete is None:
        job = _job(run, mode, left, seconds=run.seconds * ALL_CORES_SHARE)
        outcome = _do(run, job, what=f"the latency {words}")
        for name, why in outcome.failed.items():
            run.miss(f"{name} was not timed {words}: {why}")
        if outcome.result is not None:
            for name, latency in outcome.result["latency"].items():
                run.add(name, **{figure: unpack(latency)})
            return
        if run.incomplete:
            return
        guilty = {outcome.at} if outcome.at else {engine.name for engine in left}
        for name in sorted(guilty, key=str):
            run.miss(f"{name} was not timed {words}: {outcome.died}")
        left = [engine for engine in left if engine.name not in guilty | set(outcome.failed)]


def memory(run: Run, engines: Sequence[Engine]) -> None:
    """One fresh process for each engine: what another engine left behind would be counted with it."""
    for number, engine in enumerate(engines):
        part = number / len(engines), (number + 1) / len(engines)
        outcome = _do(run, _job(run, "memory", [engine]), part=part, what="the memory")
        if run.incomplete:
            return
        if not outcome.result:
            why = outcome.died or outcome.failed.get(engine.name, "its process left no result")
            run.miss(f"The memory of {engine.name} was not measured: {why}")
            continue
        phases = outcome.result["phases"]
        run.add(
            engine.name,
            memory_mb=_by_phase(phases, "resident") | {"peak": phases["steady"]["peak"]}
            if "peak" in phases["steady"]
            else None,
            anonymous_mb=_by_phase(phases, "anonymous") or None,
            system_drop_mb=outcome.result["system_drop_mb"] if jetson.is_one() else None,
            cold_start_ms=outcome.result["cold_start"],
        )


def energies(run: Run, engines: Sequence[Engine]) -> None:
    """Only where there is a counter: no process is started to find out."""
    meter, why = energy.find()
    if meter is None:
        run.not_measured["energy"] = why
        return
    outcome = _do(run, _job(run, "energy", engines), what="the energy")
    found = outcome.result["energy"] if outcome.result else {}
    for name, why in outcome.failed.items():
        run.miss(f"The energy of {name} was not measured: {why}")
    for name, packed in found.items():
        one = energy.unpack(packed)
        run.add(name, energy=one)
        if one.why_not:
            run.miss(f"The energy of {name} was not measured: {one.why_not}")
    if not found:
        run.not_measured["energy"] = run.incomplete or outcome.died or "no engine answered in the process that counts"


def sustained(run: Run, engines: Sequence[Engine]) -> None:
    """In turn, pinned, for as long as was asked."""
    outcome = _do(run, _job(run, "sustained", engines, seconds=run.sustained_seconds), what="the sustained run")
    run.sustained = outcome.result["sustained"] if outcome.result else None
    for name, why in outcome.failed.items():
        run.miss(f"{name} was left out of the sustained run: {why}")
    if run.sustained is None:
        run.not_measured["sustained"] = run.incomplete or outcome.died or "no engine was timed"


def _job(
    run: Run, mode: Any, engines: Sequence[Engine], *, seconds: float = 0.0, splits: Mapping[str, str] | None = None
) -> Job:
    return Job(
        mode=mode,
        engines=tuple(engines),
        splits=splits or {},
        seconds=seconds,
        warmup_seconds=min(MOST_WARMUP_SECONDS, seconds / max(1, len(engines))),
        seed=run.seed,
        batch=run.batch,
    )


def _do(run: Run, job: Job, *, what: str, part: tuple[float, float] = (0.0, 1.0)) -> child.Outcome:
    """Do a job. part: where its progress lies within this phase's span."""
    start, end = run.span
    low, high = (start + (end - start) * share for share in part)
    outcome = child.run(
        job,
        run.folder,
        environment=run.environment,
        timeout_seconds=run.timeout_seconds,
        progress=lambda text, share: run.tell(text, low + (high - low) * share),
    )
    if outcome.interrupted:
        run.incomplete = f"stopped while {what} was measured"
    return outcome


def _by_phase(phases: Mapping[str, Mapping[str, float]], kind: str) -> dict[str, float]:
    return {phase: round(seen[kind], 3) for phase, seen in phases.items() if kind in seen}
