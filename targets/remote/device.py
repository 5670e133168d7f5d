"""One board: what it is, and jobs that are carried out there whatever happens to the connection."""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import DeviceError, LostConnectionError, RuntimeMissingError, UnreachableError
from .address import Address
from .boards import BoardFacts, facts_of
from .package import packed
from .parcels import pack, unpack
from .ssh import Ssh, size_of, time_for
from .work import Work

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 15.0
PATIENCE_SECONDS = 900.0  # how long a board may be out of reach before it is given up; its job goes on there
OLDEST_PYTHON = (3, 6)
READ_AHEAD_BYTES = 16 * 2**20  # more than the board sends along with a file that was asked for
MOST_RESULT_BYTES = 512 * 2**20  # of one file
NO_HOME = 9  # exit status of FIRST_LOOK
FIRST_LOOK = """home=${EDGEPRESS_HOME:-$HOME/.cache/edgepress}
printf '%s\\0' "$home"
case $home in /*) mkdir -p -- "$home" || exit 9 ;; *) exit 9 ;; esac
exec "$1" -c 'import sys; print("%d %d" % sys.version_info[:2])'
"""

Progress = Callable[[float, str], None]


class Device:
    """A board over ssh. A context manager."""

    def __init__(
        self, address: Address, *, python: str = "python3", patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """python: the interpreter there, such as that of a virtual environment that holds the runtime."""
        self.address, self.python, self.patience_seconds = address, python, patience_seconds
        self.ssh = Ssh(address)
        self._home: str | None = None
        self._script: str | None = None
        self._was_reached = False

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ssh.close()

    def probe(self) -> BoardFacts:
        """What the board is. DeviceError: it cannot be reached. RuntimeMissingError: it has no Python 3."""
        return facts_of(self._ask("probe"), device=str(self.address))

    def carry_out(self, work: Work, *, progress: Progress = lambda share, text: None) -> Results:
        """Send a job, wait until it is done, and return its results; a job that is done already is only fetched.

        DeviceError: it failed there, or the board stayed out of reach. KeyboardInterrupt leaves it running: the same
        call later finds it.
        """
        folder = self._retrying(lambda: self._send(work, progress), progress)
        state = self._wait(folder, progress)
        results = Results(self, folder, tuple(state["results"]))
        if state["state"] == "failed":
            raise JobFailedError(f"{self.address}: the job failed: {str(state['text'])[:1500]}", results)
        return results

    def status(self, key: str) -> dict[str, Any]:
        """How far a job is."""
        return self._ask("status", self._folder(key))

    def stop(self, key: str) -> None:
        """End a job."""
        self._ask("stop", self._folder(key))

    def clean(self, key: str | None = None) -> str:
        """Remove a job's folder there, or everything of ours; returns what was removed."""
        removed = str(self._ask("clean", self._folder(key) if key else "all").get("removed"))
        if key is None:
            self._script = self._home = None  # they went with the rest
        return removed

    def restore_clocks(self) -> bool:
        """Put clocks back that a job held and could not put back itself."""
        return bool(self._ask("restore-clocks").get("restored"))

    def fetch(self, folder: str, names: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
        """The first of these results of a job, and of the others what comes along at little cost."""

        def once() -> dict[str, bytes]:
            words, asked = [self.python, self._sent_script(), "fetch", folder], json.dumps(names).encode()
            done = self.ssh.checked(
                words,
                what="fetching results",
                stdin=asked,
                timeout_seconds=600,
                limit_bytes=limit_bytes + READ_AHEAD_BYTES,
            )
            return unpack(done.stdout, wanted=names, device=str(self.address))

        found: dict[str, bytes] = self._retrying(once, lambda share, text: None)
        return found

    def _send(self, work: Work, progress: Progress) -> str:
        """Send what is not there yet, and start; a job that is done or running is left alone."""
        folder = self._folder(work.key)
        told = self._ask("offer", folder, stdin=json.dumps(work.manifest).encode())
        if told.get("state") == "done" or told.get("alive"):
            return folder
        missing = told.get("missing")
        files = {path: content for path, content in work.files.items() if isinstance(missing, list) and path in missing}
        if files:
            self._send_files(folder, files, work, progress)
        self._ask("start", folder)
        return folder

    def _send_files(self, folder: str, files: Mapping[str, bytes | Path], work: Work, progress: Progress) -> None:
        size = sum(map(size_of, files.values()))
        sums = {entry["path"]: entry["sha256"] for entry in work.manifest["files"]}
        answer = self._ask(
            "receive",
            folder,
            stdin=pack(files, sums),
            timeout_seconds=time_for(size),
            progress=lambda sent: progress(0.1 * min(1.0, sent / (size or 1)), f"sending {len(files)} files"),
        )
        if answer.get("received") != len(files):
            raise LostConnectionError(
                f"{self.address}: {answer.get('damaged') or 'a file'} arrived damaged; it is sent again"
            )

    def _wait(self, folder: str, progress: Progress) -> dict[str, Any]:
        wait, restarted = FIRST_WAIT_SECONDS, 0
        while True:
            state: dict[str, Any] = self._retrying(lambda: self._ask("status", folder), progress)
            if state.get("state") in {"done", "failed"}:
                return state
            if not state.get("alive"):
                restarted += 1
                if restarted > 3:
                    raise DeviceError(f"{self.address}: the job keeps ending without a result: {state.get('text')}")
                why = "the board was rebooted" if state.get("rebooted") else "its process is gone"
                progress(0.1, f"{why}; the job goes on where it was")
                self._retrying(lambda: self._ask("start", folder), progress)
            share = state.get("share")
            progress(0.1 + 0.85 * (share if isinstance(share, float) else 0.0), str(state.get("text", ""))[:200])
            time.sleep(wait)
            wait = min(LONGEST_WAIT_SECONDS, wait * 1.3)

    def _retrying(self, act: Callable[[], Any], progress: Progress) -> Any:
        """Do it, again and again while only the connection is the trouble."""
        began, wait = time.monotonic(), 1.0
        while True:
            try:
                found = act()
                self._was_reached = True
                return found
            except (LostConnectionError, UnreachableError) as error:
                if isinstance(error, UnreachableError) and not self._was_reached:
                    raise  # a wrong address is told at once; a board that restarts is waited for
                if time.monotonic() - began > self.patience_seconds:
                    raise DeviceError(
                        f"{error}. It was out of reach for {self.patience_seconds:.0f} s; what runs there goes on, "
                        "and the same command fetches it"
                    ) from None
                progress(0.1, "the connection broke; trying again")
                time.sleep(wait)
                wait = min(LONGEST_WAIT_SECONDS, wait * 1.5)

    def _ask(self, command: str, *words: str, timeout_seconds: float = 180.0, **options: Any) -> dict[str, Any]:
        """Run a command of the board's script and read its answer."""
        asked = [self.python, self._sent_script(), command, *words]
        done = self.ssh.run(asked, timeout_seconds=timeout_seconds, limit_bytes=2**20, **options)
        try:
            answer = json.loads(done.text)
        except (ValueError, RecursionError):
            said = done.stderr.strip()[-300:] or done.text[-300:]
            raise DeviceError(f"{self.address}: `{command}` failed there: {said}") from None
        if not isinstance(answer, dict):
            raise DeviceError(f"{self.address}: `{command}` answered {type(answer).__name__}")
        if "problem" in answer:
            raise DeviceError(f"{self.address}: {str(answer['problem'])[:500]}")
        return answer

    def _sent_script(self) -> str:
        """Where the script lies on the board; sent the first time."""
        if self._script is None:
            script = packed()
            path = f"{self._root()}/board-{hashlib.sha256(script).hexdigest()[:16]}.pyz"
            self.ssh.put(script, path)
            self._script = path
        return self._script

    def _root(self) -> str:
        """Our folder there, made where there is none. RuntimeMissingError: there is no Python that we can use."""
        if self._home is None:
            done = self.ssh.run(["sh", "-c", FIRST_LOOK, "sh", self.python])
            home, _, version = done.text.partition("\0")
            if done.code == NO_HOME or not home.startswith("/") or not home.isprintable() or len(home) > 1024:
                why = f"{home[:100]!r} {done.stderr.strip()[-200:]}".rstrip()
                raise DeviceError(f"{self.address}: no usable home folder there: {why}")
            self._refuse_old_python(version if done.code == 0 else "")
            self._home = home
        return self._home

    def _refuse_old_python(self, version: str) -> None:
        words = version.split()
        if len(words) != 2 or not all(word.isdigit() for word in words):
            raise RuntimeMissingError(f"{self.address}: there is no python3 on the board (3.6 or newer is needed)")
        if (int(words[0]), int(words[1])) < OLDEST_PYTHON:
            raise RuntimeMissingError(f"{self.address}: python3 there is {'.'.join(words)}, and 3.6 is needed")

    def _folder(self, key: str) -> str:
        assert key.isalnum(), "keys are hexadecimal"
        return f"{self._root()}/jobs/{key}"


class JobFailedError(DeviceError):
    """A job that ended without what was asked. results: what it left, logs above all."""

    def __init__(self, text: str, results: Results) -> None:
        super().__init__(text)
        self.results = results


class Left(ABC):
    """The files that a job left. names: of all of them. origin: for errors."""

    def __init__(self, names: tuple[str, ...], *, origin: str) -> None:
        self.names, self.origin = names, origin

    @abstractmethod
    def read(self, name: str, *, limit_bytes: int = MOST_RESULT_BYTES) -> bytes | None:
        """One file; None: the job left no such file."""

    def json(self, name: str) -> Any:
        """None: there is no such file. DeviceError: it is not JSON."""
        data = self.read(name, limit_bytes=64 * 2**20)
        if data is None:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DeviceError(f"{self.origin}: {name} is damaged ({error})") from None


class Results(Left):
    """What a job left on the board: fetched when it is asked for, small files along with others."""

    def __init__(self, device: Device, folder: str, names: tuple[str, ...]) -> None:
        super().__init__(names, origin=str(device.address))
        self.device, self.folder = device, folder
        self._left = list(names)  # not fetched yet
        self._ahead: dict[str, bytes] = {}

    def read(self, name: str, *, limit_bytes: int = MOST_RESULT_BYTES) -> bytes | None:
        if name not in self.names:
            return None
        if name not in self._ahead:
            wanted = [name, *(other for other in self._left if other != name)]
            self._ahead.update(self.device.fetch(self.folder, wanted, limit_bytes=limit_bytes))
            self._left = [other for other in self._left if other not in self._ahead]
        # JSON tells of the job and is asked again; the rest is measurements, large and read once
        return self._ahead[name] if name.endswith(".json") else self._ahead.pop(name)
