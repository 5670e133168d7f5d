"""Files, processes and the few places where a board keeps what it knows of itself."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time

ROOT = os.environ.get("EDGEPRESS_SYSROOT", "/")  # tests put a board's files elsewhere


def home():
    """Where everything of ours lies on this board."""
    return os.environ.get("EDGEPRESS_HOME") or os.path.join(os.path.expanduser("~"), ".cache", "edgepress")


def rooted(path):
    return os.path.join(ROOT, path.lstrip("/"))


def text(path, limit=65536):
    """What a small file says, stripped; None where it cannot be read."""
    try:
        with open(rooted(path), "rb") as file:
            return file.read(limit).decode("utf-8", "replace").strip("\0\n ") or None
    except (OSError, ValueError):
        return None


def number(path):
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def listed(path):
    try:
        return sorted(os.listdir(rooted(path)))
    except OSError:
        return []


def boot_id():
    return text("/proc/sys/kernel/random/boot_id") or "unknown"


def write(path, data):
    """JSON, whole or not at all."""
    folder = os.path.dirname(path)
    handle, part = tempfile.mkstemp(dir=folder, prefix=".part-")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def read(path):
    """JSON; None where there is none, or none that is whole."""
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def told(words, seconds=10):
    """What a command prints; None where it is not there, fails or takes too long."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


class Ended(object):
    """How a command ended. why: None where it ended well, else in words. memory: MiB, its own peak and the system's."""

    def __init__(self, code, seconds, why, memory):
        self.code, self.seconds, self.why, self.memory = code, seconds, why, memory


def run(words, log, seconds, cwd):
    """Run a command into a log file, with a limit of time, and watch its memory."""
    began = time.time()
    before_kb = meminfo("MemAvailable") or 0
    memory = {"peak_mb": 0.0, "available_before_mb": before_kb / 1024.0, "least_available_mb": before_kb / 1024.0}
    with open(log, "wb") as out:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, start_new_session=True
            )
        except OSError as error:
            return Ended(127, 0.0, "%s cannot be started: %s" % (words[0], error.strerror), memory)
        try:
            while process.poll() is None:
                if time.time() - began > seconds:
                    kill_group(process.pid)
                    process.wait()
                    return Ended(124, time.time() - began, "it took longer than %d s" % seconds, memory)
                memory["peak_mb"] = max(memory["peak_mb"], high_water_kb(process.pid) / 1024.0)
                left_mb = (meminfo("MemAvailable") or before_kb) / 1024.0
                memory["least_available_mb"] = min(memory["least_available_mb"], left_mb)
                time.sleep(0.02)
        except BaseException:
            kill_group(process.pid)
            raise
    return Ended(process.returncode, time.time() - began, _why(process.returncode), memory)


def _why(code):
    if code == 0:
        return None
    if code in (-9, 137):
        return "the system killed it (out of memory, most likely)"
    return "signal %d ended it" % -code if code < 0 else "exit code %d" % code


def kill_group(pid):
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def high_water_kb(pid):
    """Peak resident memory of a process."""
    for line in (text("/proc/%d/status" % pid) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def meminfo(name):
    """kB; None where the system does not tell."""
    for line in (text("/proc/meminfo") or "").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return None


def works_on(pid, folder):
    """Does that process work on that folder? A number alone may belong to somebody else by now."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return os.path.realpath(folder) in [os.path.realpath(os.fsdecode(word)) for word in words if word]
