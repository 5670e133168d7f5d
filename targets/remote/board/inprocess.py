"""A job with a runtime that Python loads: ONNX Runtime or OpenVINO, as it is installed on the board.

Each part runs in a fresh process: the timing in turn, and the memory of each engine by itself.
"""

import contextlib
import json
import os
import subprocess
import sys

import results
import system
from jobs import JobError


def carry_out(folder, manifest, say):
    names = [engine["name"] for engine in manifest["engines"]]
    failed = {}
    for number, name in enumerate(names):
        say("profiling", "memory of %s" % name, 0.2 * number / len(names))
        found = part(folder, manifest, "memory", [name])
        if "why" in found:
            failed[name] = found["why"]
    left = [name for name in names if name not in failed]
    if not left:
        raise JobError("no engine runs here: %s" % "; ".join("%s: %s" % pair for pair in sorted(failed.items())))
    say("timing", "%s in turn" % ", ".join(left), 0.2)
    found = part(folder, manifest, "timing", left)
    if "why" in found:
        raise JobError("the timing failed: %s" % found["why"])
    for number, name in enumerate(left):
        if manifest.get("evaluation"):
            say("answering", name, 0.6 + 0.3 * number / len(left))
            part(folder, manifest, "answers", [name])
    for number, name in enumerate(left):
        if manifest.get("layer_seconds"):
            say("profiling", "layers of %s" % name, 0.9 + 0.1 * number / len(left))
            part(folder, manifest, "layers", [name])


def part(folder, manifest, what, names):
    """Run one part in a process of its own and return what it found; kept for the next time, as is what went wrong."""
    result = os.path.join(results.folder_of(folder), "%s-%s.json" % (what, "all" if what == "timing" else names[0]))
    known = system.read(result)
    if known is not None and (what != "timing" or _has_timed(known, names)):
        return known
    with contextlib.suppress(OSError):
        os.unlink(result)  # of a timing that lacks an engine
    log = result[: -len(".json")] + ".log"
    words = [sys.executable, os.path.abspath(sys.argv[0]), "part", json.dumps([folder, what, names, result])]
    seconds = manifest["limits"]["step_seconds"]
    try:
        ended = system.run(words, log, seconds, folder)
    except subprocess.SubprocessError as error:
        raise JobError(str(error))
    found = system.read(result)
    if found is None:
        found = {"why": "%s: %s" % (ended.why or "it left no result", _end(log))}
        system.write(result, found)
    return found


def _has_timed(known, names):
    """An engine that runs only at the second try was not in turn with the others: all are timed again."""
    return "why" in known or set(names) <= set(known["samples_ms"])


def _end(log):
    try:
        with open(log, "rb") as file:
            lines = file.read(1 << 20).decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1][:300] if lines else "it said nothing"
