"""Run one measuring process and survive whatever it does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .jobs import RESULT, Job

POLL_SECONDS = 0.05
LAST_SECONDS = 5.0  # for a process that was told to finish: one call, and writing the result
EVENTS = "events.jsonl"
ERRORS = "errors.txt"
# One thread for numpy in the process that measures: threads of its own would spin beside the engine.
QUIET = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(kw_only=True)
class Outcome:
    """What is left of a measuring process. result: None where it did not finish; then `died` says why.

    at: the engine that was at work last. failed: why, for each engine that could not be measured.
    interrupted: Ctrl-C was pressed; the result, if there is one, is what was measured until then.
    """

    result: dict[str, Any] | None = None
    died: str | None = None
    at: str | None = None
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def run(
    job: Job,
    folder: Path,
    *,
    environment: Mapping[str, str],
    timeout_seconds: float,
    progress: Callable[[str, float], None],
) -> Outcome:
    """Do a job in a fresh process. timeout_seconds: silence that counts as hanging."""
    job.write(folder)
    (folder / RESULT).unlink(missing_ok=True)
    outcome = Outcome()
    with (folder / EVENTS).open("wb") as events, (folder / ERRORS).open("wb") as errors:
        process = _start(folder, events=events, errors=errors, environment=environment)
        try:
            outcome.died = _follow(process, folder, outcome, timeout_seconds=timeout_seconds, progress=progress)
        except KeyboardInterrupt:
            outcome.interrupted = True
            outcome.died = _finish(process, folder)
        finally:
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()
    if outcome.died is None:
        outcome.result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return outcome


def _start(
    folder: Path, *, events: IO[bytes], errors: IO[bytes], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgepress.targets.worker", str(folder)],
        stdin=subprocess.PIPE,  # never written to: it closes when this process ends, and the child sees that
        stdout=events,
        stderr=errors,
        env={**os.environ, **QUIET, **environment},
        cwd=folder,  # -m puts this folder on the path of imports, and the user's has files of any name
    )


def _follow(
    process: subprocess.Popen[bytes],
    folder: Path,
    outcome: Outcome,
    *,
    timeout_seconds: float,
    progress: Callable[[str, float], None],
) -> str | None:
    """Read events until the process ends; returns why it ended badly, or None."""
    heard = time.monotonic()
    with (folder / EVENTS).open("rb") as events:
        while True:
            ended = process.poll() is not None  # asked before reading, so that nothing written last is missed
            for event in _new_events(events):
                heard = time.monotonic()
                outcome.at = event["engine"]
                if event["event"] == "failed":
                    outcome.failed[event["engine"]] = event["why"]
                else:
                    progress(event["text"], event["share"])
            if ended:
                return _reason(process.returncode, folder)
            if time.monotonic() - heard > timeout_seconds:
                return f"no answer for {timeout_seconds:g} s: it hangs, or needs a longer time-out"
            time.sleep(POLL_SECONDS)


def _finish(process: subprocess.Popen[bytes], folder: Path) -> str | None:
    """Let the process leave what it has; returns why it left nothing, or None. Ctrl-C once more ends this too."""
    if os.name == "posix":  # a terminal tells the child as well, whoever sends the signal to us alone does not
        process.send_signal(signal.SIGINT)
    try:
        process.wait(LAST_SECONDS)
    except subprocess.TimeoutExpired:
        return "stopped in the middle of a call"
    return _reason(process.returncode, folder)


def _new_events(events: IO[bytes]) -> Iterator[dict[str, Any]]:
    while True:
        position = events.tell()
        line = events.readline()
        if not line.endswith(b"\n"):
            events.seek(position)  # half a line: the rest comes later
            return
        yield json.loads(line)


def _reason(code: int, folder: Path) -> str | None:
    if code == 0 and (folder / RESULT).exists():
        return None
    said = (folder / ERRORS).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    words = f": {said[-1]}" if said else ""
    if code >= 0:
        return f"the measuring process ended with exit code {code}{words}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if -code == signal.SIGKILL:
        return "the measuring process was killed (SIGKILL): most often there was not enough memory"
    return f"the runtime crashed ({name}){words}"
