"""What a measuring process can be asked to do: one function for each kind of job."""

import functools
import gc
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import energy, layers, memory, sustained
from .answers import answer_split, first_answer
from .cpu import usable_cpus
from .errors import StageError
from .events import Events
from .jobs import SAMPLE, Job, pack
from .runtimes import target
from .sessions import Array, Session, check_input
from .statistics import Latency
from .surroundings import Watch
from .timing import PRECISION_GOAL, time_in_turn

TIMED = 0.4  # of a pinned job's progress; the rest are answers
LOADS = 4  # of every engine, an even number, where there is time ...
SECONDS_FOR_LOADS = 8.0  # ... else two
STEADY_CALLS = 20  # memory stands still after a few: arenas have grown to what one inference needs


def pinned(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """Latency in turn on as few cores as there are threads, then every split through the sessions that were timed."""
    threads = max(engine.threads for engine in job.engines)
    cpus = _pin(threads)
    sample = np.load(folder / SAMPLE)
    watch = Watch(cpus=cpus)
    sessions, latencies = _time_several_loads(job, sample, events, threads=threads, looking=watch.look)
    during = watch.end()
    int8: dict[str, Any] = {}
    answers: dict[str, list[str]] = {}
    for number, engine in enumerate(job.engines):
        if engine.name not in sessions:
            continue
        if events.stopping:
            break
        share = TIMED + (1 - TIMED) * number / len(job.engines)
        try:
            if engine.precision == "int8":
                events.at(engine.name, f"reading the layers of {engine.name}", share)
                int8[engine.name] = target(engine.runtime).int8_layers(
                    engine.path, precision=engine.precision, threads=engine.threads
                )
            alive = functools.partial(events.at, engine.name, f"answering with {engine.name}", share)
            answers[engine.name] = _answer(job, folder, number, sessions[engine.name], alive)
        except Exception as error:  # whatever one engine does, the others are measured
            events.failed(engine.name, error)
    return {
        "latency": _packed(latencies), "int8": int8, "answers": answers, "pinned_cpus": cpus, "during": during,
        "stopped": events.stopping,
    }  # fmt: skip


def all_cores(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """Latency in turn, every core at work."""
    threads = len(usable_cpus())
    sample = np.load(folder / SAMPLE)
    sessions = _load(job, sample, events, threads=threads)
    latencies = _time(job, sessions, sample, events, threads=threads)
    return {"latency": _packed(latencies), "stopped": events.stopping}


def batch(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """Latency of whole batches in turn, pinned as single samples are."""
    threads = max(engine.threads for engine in job.engines)
    _pin(threads)
    sample = np.repeat(np.load(folder / SAMPLE), job.batch, axis=0)
    sessions = _load(job, sample, events, threads=None)
    latencies = _time(job, sessions, sample, events, threads=threads)
    return {"latency": _packed(latencies), "stopped": events.stopping}


def memory_by_phase(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """What one engine holds, phase by phase, and how fast it starts, in a process that does nothing else."""
    (engine,) = job.engines
    _pin(engine.threads)
    sample = np.load(folder / SAMPLE)
    phases = {"start": memory.now_mb()}
    left_mb = [memory.available_mb()]
    cold_start: dict[str, float] = {}
    try:
        runtime = target(engine.runtime)
        events.at(engine.name, f"memory of {engine.name}", 0.0)
        with _timed(cold_start, "runtime_ms"):
            trouble = runtime.unavailable()  # imports it
        if trouble:
            raise StageError(trouble)
        phases["runtime"] = memory.now_mb()
        with _timed(cold_start, "load_ms"):
            session = runtime.load(engine.path, precision=engine.precision, threads=engine.threads)
        phases["load"] = memory.now_mb()
        left_mb.append(memory.available_mb())
        with _timed(cold_start, "first_ms"):
            session(sample)
        phases["first"] = memory.now_mb()
        for _ in range(STEADY_CALLS):
            session(sample)
            events.at(engine.name, f"memory of {engine.name}", 0.9)
        phases["steady"] = memory.now_mb()
        left_mb.append(memory.available_mb())
    except Exception as error:  # as above: the parent writes down whatever it was
        events.failed(engine.name, error)
        return {}
    known = [value for value in left_mb if value is not None]
    return {"phases": phases, "cold_start": cold_start, "system_drop_mb": known[0] - min(known) if known else None}


def energy_in_turn(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """Energy of one inference, pinned as it was timed; the machine's rest is measured in between."""
    _pin(max(engine.threads for engine in job.engines))
    sample = np.load(folder / SAMPLE)
    sessions = _load(job, sample, events, threads=None)
    meter, why = energy.find()
    if meter is None:
        return {"energy": {}, "why": why}
    calls = {name: functools.partial(session, sample) for name, session in sessions.items()}
    found = energy.measure_in_turn(
        calls,
        meter,
        visiting=lambda name, share: events.at(name, f"energy of {name}", share),
        stopping=lambda: events.stopping,
    )
    return {"energy": {name: energy.pack(one) for name, one in found.items()}, "stopped": events.stopping}


def for_long(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """Latency in turn for so long that heat shows, with the temperature beside it."""
    threads = max(engine.threads for engine in job.engines)
    watch = Watch(cpus=_pin(threads))
    sample = np.load(folder / SAMPLE)
    sessions = _load(job, sample, events, threads=None)
    latencies = _time(job, sessions, sample, events, threads=threads, looking=watch.look, goal=0.0)
    return {"sustained": sustained.summary(latencies, watch.seen), "stopped": events.stopping}


def _time_several_loads(
    job: Job, sample: Array, events: Events, *, threads: int, looking: Callable[[], None]
) -> tuple[dict[str, Session], dict[str, Latency]]:
    """The last sessions, and the latencies over several loads, each with its part of the time.

    Where weights come to lie in memory depends on what was loaded before, and stays so while the process lives: of
    one file loaded twice, the first was 1 % slower on average where weights take some MB and other cores are at work.
    So each second load takes the opposite order of the one before.
    """
    count = LOADS if job.seconds >= SECONDS_FOR_LOADS else 2
    goal = PRECISION_GOAL * math.sqrt(count)  # all together are as precise as is wanted then
    rng = random.Random(job.seed)
    engines = list(job.engines)
    sessions: dict[str, Session] = {}
    latencies: dict[str, Latency] = {}
    began = time.monotonic()
    for turn in range(count):
        for session in sessions.values():
            session.close()  # before others take their place: there may not be room for both
        sessions.clear()
        gc.collect()
        sessions = _load(replace(job, engines=tuple(engines)), sample, events, threads=None)
        part, at_s = replace(job, seconds=job.seconds / count), time.monotonic() - began
        shares = TIMED * turn / count, TIMED * (turn + 1) / count
        found = _time(part, sessions, sample, events, shares=shares, threads=threads, looking=looking, goal=goal)
        found = {name: replace(one, precision_goal=PRECISION_GOAL) for name, one in found.items()}
        if turn and events.stopping:
            break
        latencies = {name: latencies[name].then(one, at_s=at_s) if turn else one for name, one in found.items()}
        if not turn:
            began += at_s
        if events.stopping:
            break
        engines = [engine for engine in reversed(engines) if engine.name in sessions]
        if turn % 2:
            rng.shuffle(engines)
    return sessions, latencies


def _load(job: Job, sample: Array, events: Events, *, threads: int | None) -> dict[str, Session]:
    """Every engine that loads and answers as it should; the first that does sets the shape for all."""
    sessions: dict[str, Session] = {}
    shape: tuple[int, ...] | None = None
    for engine in job.engines:
        if events.stopping:
            break
        events.at(engine.name, f"loading {engine.name}", 0.0)
        try:
            session = target(engine.runtime).load(
                engine.path, precision=engine.precision, threads=threads or engine.threads
            )
            check_input(session, sample)
            answer = first_answer(session, sample, shape=shape)
        except Exception as error:  # native libraries raise what they like
            events.failed(engine.name, error)
            continue
        shape = shape or answer.shape
        sessions[engine.name] = session
    return sessions


def _time(
    job: Job,
    sessions: Mapping[str, Session],
    sample: Array,
    events: Events,
    *,
    threads: int,
    shares: tuple[float, float] = (0.0, 1.0),
    looking: Callable[[], None] = lambda: None,
    goal: float = PRECISION_GOAL,
) -> dict[str, Latency]:
    """shares: of the job's progress, from and to. looking: called between visits, while no clock runs. goal: half the
    interval at which to stop, as a share; 0: go on until the time is used up."""
    begin, end = shares
    began = time.monotonic()
    expected = job.seconds + 0.5 * job.warmup_seconds * len(sessions)

    def visiting(name: str) -> None:
        looking()
        gone = min(1.0, (time.monotonic() - began) / expected)
        events.at(name, f"timing {name}", begin + (end - begin) * gone)

    return time_in_turn(
        {name: functools.partial(session, sample) for name, session in sessions.items()},
        seconds=job.seconds,
        precision_goal=goal,
        warmup_seconds=job.warmup_seconds,
        rng=random.Random(job.seed),
        visiting=visiting,
        stopping=lambda: events.stopping,
        threads=threads,
    )


def _packed(latencies: Mapping[str, Latency]) -> dict[str, Any]:
    return {name: pack(latency) for name, latency in latencies.items()}


def _answer(job: Job, folder: Path, number: int, session: Session, alive: Callable[[], None]) -> list[str]:
    """Save the answers for every split; returns the files' names, in the order of the splits."""
    names = []
    for index, file in enumerate(job.splits.values()):
        images = np.load(folder / file, mmap_mode="r")
        names.append(f"answers-{number}-{index}.npy")
        np.save(folder / names[-1], answer_split(session, images, alive=alive))
    return names


@contextmanager
def _timed(into: dict[str, float], name: str) -> Iterator[None]:
    """Write how long the block took, in milliseconds, under a name."""
    began = time.perf_counter_ns()
    yield
    into[name] = (time.perf_counter_ns() - began) / 1e6


def _pin(threads: int) -> list[int]:
    """Stay on the last CPUs: the first one serves most interrupts. Elsewhere than on Linux: all of them."""
    chosen = list(usable_cpus()[-threads:])
    if sys.platform == "linux":
        os.sched_setaffinity(0, chosen)
        return chosen
    return []


def layer_by_layer(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """What each layer of each engine takes, by the runtime's own counters."""
    _pin(max(engine.threads for engine in job.engines))
    sample = np.load(folder / SAMPLE)
    found = {}
    for number, engine in enumerate(job.engines):
        events.at(engine.name, f"layers of {engine.name}", number / len(job.engines))
        try:
            found[engine.name] = layers.pack(layers.read(engine, sample, seconds=job.seconds))
        except Exception as error:  # likewise: the other engines' layers are read
            events.failed(engine.name, error)
    return {"layers": found}


DUTIES: dict[str, Callable[[Job, Path, Events], dict[str, Any]]] = {
    "pinned": pinned,
    "all_cores": all_cores,
    "batch": batch,
    "memory": memory_by_phase,
    "layers": layer_by_layer,
    "energy": energy_in_turn,
    "sustained": for_long,
}
