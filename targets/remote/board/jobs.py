"""Jobs on the board: started, looked at, stopped, and worked off one at a time, whatever happens to the connection."""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback

import results
import system

STATES = ("queued", "building", "timing", "answering", "profiling", "done", "failed")
ENDED = ("done", "failed")  # a worker's last word
MANIFEST = "manifest.json"
WORKER = "worker.lock"  # locked by whoever works on the job, and by nobody once it is gone, however it ended
WAIT_SECONDS = 0.5
STOP_SECONDS = 5.0


class JobError(Exception):
    """Something that whoever asked can do something about."""


def start(folder):
    """Begin, or go on with, the job in a folder; it goes on when the connection breaks.

    A job that was interrupted keeps all that it found. One that failed is tried again: it keeps what did not fail.
    """
    _checked_manifest(folder)
    with _worker_lock(folder) as lock:
        if lock is not None:
            state = _said(folder)["state"]
            if state == "failed":
                results.forget_failures(folder)
            if state != "done":
                _launch(folder, lock)
    return status(folder)


def _launch(folder, lock):
    for path in (os.path.join(system.home(), "engines"), os.path.join(system.home(), "timing")):
        os.makedirs(path, exist_ok=True)
    os.makedirs(results.folder_of(folder), exist_ok=True)
    _say(folder, "queued", "about to begin", pid=None)  # before the worker is there: from then on it alone speaks
    with open(os.path.join(folder, "worker.log"), "ab") as log:
        subprocess.Popen(
            [sys.executable, _script(), "work", folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
            pass_fds=(lock.fileno(),),  # a lock lives as long as any process has it open: the worker never lets go
        )


def status(folder):
    """How far the job is. alive: somebody works on it. pid: of that process, once it has said so itself."""
    has_worker = _has_worker(folder)  # asked first: what a worker said that is gone is its last word
    found = _said(folder)
    found["alive"] = has_worker and found["state"] not in ENDED
    found["rebooted"] = found.get("boot_id") not in (None, system.boot_id())
    found["results"] = results.names(folder)
    return found


def stop(folder):
    end, is_told = time.time() + STOP_SECONDS, False
    while True:
        found = status(folder)
        # The process is asked for, too: for a moment at the start of a job the number is that of the one before.
        is_there = found["alive"] and found.get("pid") and system.works_on(found["pid"], folder)
        if not found["alive"] or time.time() > end:
            break
        if is_there and not is_told:
            is_told = True
            with contextlib.suppress(OSError):
                os.killpg(found["pid"], signal.SIGTERM)
        time.sleep(0.1)
    if is_there:
        system.kill_group(found["pid"])
    return status(folder)


def clean(what):
    """Remove a job's folder, or everything of ours. The names that it may remove are fixed."""
    root = os.path.realpath(system.home())
    if what == "all":
        for folder in glob.glob(os.path.join(glob.escape(root), "jobs", "*")):
            stop(folder)
        restore_clocks()  # what they were is known by files that go now
        shutil.rmtree(root, ignore_errors=True)
        return {"removed": root}
    path = os.path.realpath(what)
    if os.path.dirname(path) != os.path.join(root, "jobs"):
        raise JobError("%s is no folder of a job" % what)
    stop(what)
    shutil.rmtree(path, ignore_errors=True)
    return {"removed": path}


def restore_clocks():
    """Put clocks and power mode back as they were before a job."""
    import clocks

    return {"restored": clocks.restore()}


def work(folder):
    """Carry out the job; what `start` runs detached."""
    signal.signal(signal.SIGTERM, _raise_stop)
    say = lambda state, text, share=None: _say(folder, state, text, share=share, pid=os.getpid())
    try:
        say("queued", "waiting for its turn")
        manifest = _checked_manifest(folder)
        with _turn(manifest, say):
            _carry_out(folder, manifest, say)
    except JobError as problem:
        say("failed", str(problem))
    except SystemExit:
        say("failed", "it was stopped")
        raise
    except OSError as error:
        say("failed", words_of(error))
    except Exception:
        say("failed", traceback.format_exc(limit=4)[-1500:])


def words_of(error):
    """What an OSError means for somebody far away."""
    where = " (%s)" % error.filename if error.filename else ""
    helps = ": the disk there is full, make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return "%s%s%s" % (error.strerror or error, where, helps)


def _carry_out(folder, manifest, say):
    import clocks
    import inprocess
    import tool

    try:
        if manifest.get("power_mode") is not None:
            problem = clocks.switch(manifest["power_mode"])
            if problem:
                raise JobError(problem)
        if manifest.get("lock_clocks") and not clocks.hold():
            raise JobError("the clocks cannot be held: jetson_clocks does not run with sudo, or fails")
        runner = tool if manifest["runtime"] == "tensorrt" else inprocess
        runner.carry_out(folder, manifest, say)
    finally:
        clocks.restore()
    say("done", "done", 1.0)


@contextlib.contextmanager
def _turn(manifest, say):
    """One job measures at a time on one board; the others wait."""
    os.makedirs(system.home(), exist_ok=True)
    with open(os.path.join(system.home(), "lock"), "a+") as lock:
        told = None
        while not _locked(lock, fcntl.LOCK_EX):
            lock.seek(0)
            ahead = "behind job %s" % (lock.read(100).strip() or "of somebody else")
            if ahead != told:
                say("queued", ahead)
                told = ahead
            time.sleep(WAIT_SECONDS)
        lock.seek(0)
        lock.truncate()
        lock.write(str(manifest["job"]))
        lock.flush()
        yield


@contextlib.contextmanager
def _worker_lock(folder):
    """The right to start a worker, as an open file; None where there is one already."""
    with open(os.path.join(folder, WORKER), "a") as lock:
        for _ in range(50):  # a worker after its last word, and who asks for the status, hold it for a moment
            if _locked(lock, fcntl.LOCK_EX):
                yield lock
                return
            time.sleep(0.02)
        yield None


def _has_worker(folder):
    try:
        with open(os.path.join(folder, WORKER)) as lock:
            return not _locked(lock, fcntl.LOCK_SH)
    except OSError:
        return False  # never started


def _locked(file, kind):
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def read_manifest(folder):
    found = system.read(os.path.join(folder, MANIFEST))
    if not isinstance(found, dict) or found.get("schema") != 1:
        raise JobError("%s holds no manifest of schema 1" % folder)
    return found


def _checked_manifest(folder):
    found = read_manifest(folder)
    for entry in found["files"]:
        path = os.path.join(folder, entry["path"])
        if not os.path.isfile(path) or system.sha256(path) != entry["sha256"]:
            raise JobError("%s is missing or damaged: send it again" % entry["path"])
    return found


def _said(folder):
    return system.read(os.path.join(folder, "status.json")) or {"state": None, "text": "not started"}


def _say(folder, state, text, pid, share=None):
    assert state in STATES, state
    system.write(
        os.path.join(folder, "status.json"),
        {
            "state": state,
            "text": text,
            "share": _said(folder).get("share", 0.0) if share is None else share,
            "pid": pid,
            "boot_id": system.boot_id(),
            "updated": time.time(),
        },
    )


def _raise_stop(*_):
    raise SystemExit(143)


def _script():
    """The zip file that this runs from."""
    return os.path.abspath(sys.argv[0])
