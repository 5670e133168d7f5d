"""What a job has found so far, and what of it a second try does again: what failed, and nothing else."""

import contextlib
import os

import system

ROUNDS = "rounds.json"  # of timing with TensorRT; each round has an entry for each engine


def folder_of(job):
    return os.path.join(job, "results")


def names(job):
    try:
        return sorted(name for name in os.listdir(folder_of(job)) if not name.startswith("."))
    except OSError:
        return []


def forget_failures(job):
    """Every result that says `why` there is none: a failed download or a full disk is mended, and asked for again."""
    for name in names(job):
        path = os.path.join(folder_of(job), name)
        found = system.read(path) if name.endswith(".json") else None
        if not isinstance(found, dict):
            continue
        if name == ROUNDS:
            system.write(path, dict(found, rounds=[_unless_failed(one) for one in found["rounds"]]))
        elif found.get("why"):
            with contextlib.suppress(OSError):
                os.unlink(path)


def _unless_failed(timed):
    """A round in which one engine failed is forgotten whole: engines are compared within their rounds."""
    return None if timed is None or any(entry.get("why") for entry in timed.values()) else timed


def is_whole(timed, wanted):
    """Does this round have a time of every wanted engine? One that could be built only at the second try has none."""
    return timed is not None and all(name in timed for name in wanted)
