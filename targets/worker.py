"""The process that measures: `python -m edgepress.targets.worker FOLDER` does the job that lies there.

It tells what it does as JSON lines on its standard output, so that whoever waits for it knows which engine
was at work if it dies or falls silent, and leaves its result in the folder. It ends when the process that
started it ends.
"""

import functools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import memory
from .answers import answer_split, first_answer
from .cpu import usable_cpus
from .errors import EdgepressError, StageError
from .jobs import RESULT, SAMPLE, Job, pack
from .runtimes import target
from .sessions import Array, Session, check_input
from .timing import time_in_turn

STEADY_CALLS = 20  # memory stands still after a few: arenas have grown to what one inference needs
PR_SET_PDEATHSIG = 1
SIGKILL = 9


class Events:
    """Tells the parent what happens: each line also says that this process is alive."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def at(self, engine: str, text: str, share: float) -> None:
        self._write({"event": "at", "engine": engine, "text": text, "share": round(share, 4)})

    def failed(self, engine: str, error: Exception) -> None:
        kind = "" if isinstance(error, EdgepressError) else f"{type(error).__name__}: "
        self._write({"event": "failed", "engine": engine, "why": f"{kind}{error}"})

    def _write(self, event: dict[str, Any]) -> None:
        os.write(self._descriptor, (json.dumps(event) + "\n").encode())


def main(folder: Path) -> int:
    """Do the job in `folder`."""
    _end_with_parent()
    events = Events(_own_output())
    job = Job.read(folder)
    modes: dict[str, Callable[[Job, Path, Events], dict[str, Any]]] = {
        "pinned": _pinned,
        "all_cores": _all_cores,
        "memory": _memory,
    }
    result = modes[job.mode](job, folder, events)
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")
    return 0


def _pinned(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """Latency in turn on as few cores as there are threads, then every split through the same sessions."""
    threads = max(engine.threads for engine in job.engines)
    pinned = _pin(threads)
    sample = np.load(folder / SAMPLE)
    sessions = _load(job, sample, events, threads=None)
    latencies = _time(job, sessions, sample, events, share=0.4, threads=threads)
    int8: dict[str, Any] = {}
    answers: dict[str, list[str]] = {}
    for number, engine in enumerate(job.engines):
        if engine.name not in sessions:
            continue
        share = 0.4 + 0.6 * number / len(job.engines)
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
    return {"latency": latencies, "int8": int8, "answers": answers, "pinned_cpus": pinned}


def _all_cores(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """Latency in turn, every core at work."""
    threads = len(usable_cpus())
    sample = np.load(folder / SAMPLE)
    sessions = _load(job, sample, events, threads=threads)
    return {"latency": _time(job, sessions, sample, events, share=1.0, threads=threads)}


def _memory(job: Job, folder: Path, events: Events) -> dict[str, Any]:
    """What one engine holds, phase by phase, in a process that does nothing else."""
    (engine,) = job.engines
    _pin(engine.threads)
    phases = {"start": memory.now_mb()}
    try:
        runtime = target(engine.runtime)
        events.at(engine.name, f"memory of {engine.name}", 0.0)
        trouble = runtime.unavailable()  # imports it
        if trouble:
            raise StageError(trouble)
        phases["runtime"] = memory.now_mb()
        began = time.perf_counter_ns()
        session = runtime.load(engine.path, precision=engine.precision, threads=engine.threads)
        phases["load"] = memory.now_mb()
        sample = np.load(folder / SAMPLE)
        session(sample)
        cold_start_ms = (time.perf_counter_ns() - began) / 1e6
        phases["first"] = memory.now_mb()
        for _ in range(STEADY_CALLS):
            session(sample)
            events.at(engine.name, f"memory of {engine.name}", 0.9)
        phases["steady"] = memory.now_mb()
    except Exception as error:
        events.failed(engine.name, error)
        return {}
    return {"phases": phases, "cold_start_ms": cold_start_ms}


def _load(job: Job, sample: Array, events: Events, *, threads: int | None) -> dict[str, Session]:
    """Every engine that loads and answers as it should; the first that does sets the shape for all."""
    sessions: dict[str, Session] = {}
    shape: tuple[int, ...] | None = None
    for engine in job.engines:
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
    job: Job, sessions: dict[str, Session], sample: Array, events: Events, *, share: float, threads: int
) -> dict[str, Any]:
    began = time.monotonic()
    expected = job.seconds + 0.5 * job.warmup_seconds * len(sessions)

    def visiting(name: str) -> None:
        events.at(name, f"timing {name}", share * min(1.0, (time.monotonic() - began) / expected))

    latencies = time_in_turn(
        {name: functools.partial(session, sample) for name, session in sessions.items()},
        seconds=job.seconds,
        warmup_seconds=job.warmup_seconds,
        rng=random.Random(job.seed),
        visiting=visiting,
        threads=threads,
    )
    return {name: pack(latency) for name, latency in latencies.items()}


def _answer(job: Job, folder: Path, number: int, session: Session, alive: Callable[[], None]) -> list[str]:
    """Save the answers for every split; returns the files' names, in the order of the splits."""
    names = []
    for index, file in enumerate(job.splits.values()):
        images = np.load(folder / file, mmap_mode="r")
        names.append(f"answers-{number}-{index}.npy")
        np.save(folder / names[-1], answer_split(session, images, alive=alive))
    return names


def _pin(threads: int) -> list[int]:
    """Stay on the last CPUs: the first one serves most interrupts. Elsewhere than on Linux: all of them."""
    chosen = list(usable_cpus()[-threads:])
    if sys.platform == "linux":
        os.sched_setaffinity(0, chosen)
        return chosen
    return []


def _own_output() -> int:
    """Keep the standard output for events alone: what libraries print goes where their errors go."""
    events = os.dup(1)
    os.dup2(2, 1)
    return events


def _end_with_parent() -> None:
    """The parent holds the other end of our standard input: when it closes, nobody waits for the result."""

    def wait() -> None:
        while os.read(0, 1024):  # not sys.stdin: a thread that holds its lock cannot be stopped at the end
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    if sys.platform == "linux":  # also where a native library hangs and lets no thread of ours run
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1])))  # not sys.exit: what runtimes do while they are torn down is of no interest
