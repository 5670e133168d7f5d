"""The process that measures: `python -m edgepress.targets.worker FOLDER` does the job that lies there.

It tells what it does as JSON lines on its standard output, so that whoever waits for it knows which engine
was at work if it dies or falls silent, and leaves its result in the folder. It ends when the process that
started it ends.
"""

import json
import os
import sys
import threading
from pathlib import Path

from .duties import DUTIES
from .events import Events
from .jobs import RESULT, Job

PR_SET_PDEATHSIG = 1
SIGKILL = 9


def main(folder: Path) -> int:
    """Do the job in `folder`."""
    _end_with_parent()
    events = Events(_own_output())
    events.listen()
    job = Job.read(folder)
    result = DUTIES[job.mode](job, folder, events)
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")
    return 0


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
