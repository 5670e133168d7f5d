"""Jobs on the board: started, looked at, stopped, and worked off one at a time, whatever happens to the connection."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback

import system

STATES = ("queued", "building", "timing", "answering", "profiling", "done", "failed")
WAIT_SECONDS = 0.5


class JobError(Exception):
    """Something that whoever asked can do something about."""


def start(folder):
    """Begin, or go on with, the job in a folder; it goes on when the connection breaks."""
    _manifest(folder)
    found = status(folder)
    if found["alive"] or found.get("state") == "done":
        return found
    for name in ("engines", "timing"):
        os.makedirs(os.path.join(system.home(), name), exist_ok=True)
    os.makedirs(os.path.join(folder, "results"), exist_ok=True)
    with open(os.path.join(folder, "worker.log"), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, _script(), "work", folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
        )
    _say(folder, "queued", "waiting for its turn", pid=process.pid)
    return status(folder)


def status(folder):
    """How far the job is. alive: somebody works on it."""
    found = system.read(os.path.join(folder, "status.json")) or {"state": None, "text": "not started"}
    pid = found.get("pid")
    found["alive"] = bool(pid) and system.is_alive(pid, found.get("boot_id"), folder)
    found["rebooted"] = bool(pid) and found.get("boot_id") != system.boot_id()
    found["results"] = sorted(name for name in _list(os.path.join(folder, "results")) if not name.startswith("."))
    return found


def stop(folder):
    found = status(folder)
    if found["alive"]:
        with contextlib.suppress(OSError):
            os.killpg(found["pid"], signal.SIGTERM)
        for _ in range(50):
            if not status(folder)["alive"]:
                break
            time.sleep(0.1)
        else:
            system.kill_group(found["pid"])
    return status(folder)


def clean(what):
    """Remove a job's folder, or everything of ours. The names that it may remove are fixed."""
    root = os.path.realpath(system.home())
    if what == "all":
        shutil.rmtree(root, ignore_errors=True)
        return {"removed": root}
    path = os.path.realpath(what)
    if os.path.dirname(path) != os.path.join(root, "jobs"):
        raise JobError("%s is no folder of a job" % what)
    stop(what)
    shutil.rmtree(path, ignore_errors=True)
    return {"removed": path}


def restore_clocks():
    """Put the clocks back as they were before they were held."""
    import clocks

    return {"restored": clocks.restore()}


def work(folder):
    """Carry out the job; what `start` runs detached."""
    signal.signal(signal.SIGTERM, _raise_stop)
    manifest = _manifest(folder)
    with _turn(folder, manifest):
        try:
            _carry_out(folder, manifest)
        except JobError as problem:
            _say(folder, "failed", str(problem))
        except SystemExit:
            _say(folder, "failed", "it was stopped")
            raise
        except OSError as error:
            where = " (%s)" % error.filename if error.filename else ""
            _say(folder, "failed", "%s%s" % (error.strerror or error, where))
        except Exception:
            _say(folder, "failed", traceback.format_exc(limit=4)[-1500:])


def _carry_out(folder, manifest):
    import clocks
    import inprocess
    import tool

    say = lambda state, text, share=None: _say(folder, state, text, share=share)
    held = clocks.hold() if manifest.get("lock_clocks") else None
    try:
        runner = tool if manifest["runtime"] == "tensorrt" else inprocess
        runner.carry_out(folder, manifest, say)
    finally:
        if held:
            clocks.restore()
    _say(folder, "done", "done", share=1.0)


@contextlib.contextmanager
def _turn(folder, manifest):
    """One job measures at a time on one board; the others wait."""
    os.makedirs(system.home(), exist_ok=True)
    with open(os.path.join(system.home(), "lock"), "a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                lock.seek(0)
                _say(folder, "queued", "behind job %s" % (lock.read(100).strip() or "of somebody else"))
                time.sleep(WAIT_SECONDS)
        lock.seek(0)
        lock.truncate()
        lock.write(str(manifest["job"]))
        lock.flush()
        yield


def _manifest(folder):
    found = system.read(os.path.join(folder, "manifest.json"))
    if not isinstance(found, dict) or found.get("schema") != 1:
        raise JobError("%s holds no manifest of schema 1" % folder)
    for entry in found["files"]:
        path = os.path.join(folder, entry["path"])
        if not os.path.isfile(path) or system.sha256(path) != entry["sha256"]:
            raise JobError("%s is missing or damaged: send it again" % entry["path"])
    return found


def _say(folder, state, text, share=None, pid=None):
    assert state in STATES, state
    before = system.read(os.path.join(folder, "status.json")) or {}
    system.write(
        os.path.join(folder, "status.json"),
        {
            "state": state,
            "text": text,
            "share": before.get("share", 0.0) if share is None else share,
            "pid": pid or (os.getpid() if state != "queued" or before.get("pid") == os.getpid() else before.get("pid")),
            "boot_id": system.boot_id(),
            "updated": time.time(),
        },
    )


def _raise_stop(*_):
    raise SystemExit(143)


def _script():
    """The zip file that this runs from."""
    return os.path.abspath(sys.argv[0])


def _list(path):
    try:
        return os.listdir(path)
    except OSError:
        return []
