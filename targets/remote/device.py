"""One board: what it is, and jobs that are carried out there whatever happens to the connection."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any

from ..errors import DeviceError, LostConnectionError, RuntimeMissingError
from .address import Address
from .boards import BoardFacts, facts_of
from .package import packed
from .ssh import Ssh
from .work import Work

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 15.0
PATIENCE_SECONDS = 900.0  # how long a board may be out of reach before it is given up; its job goes on there
OLDEST_PYTHON = (3, 6)

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
            raise DeviceError(f"{self.address}: the job failed: {str(state['text'])[:1500]}")
        return results

    def status(self, key: str) -> dict[str, Any]:
        """How far a job is."""
        return self._ask("status", self._folder(key))

    def stop(self, key: str) -> None:
        """End a job."""
        self._ask("stop", self._folder(key))

    def clean(self, key: str | None = None) -> str:
        """Remove a job's folder there, or everything of ours; returns what was removed."""
        return str(self._ask("clean", self._folder(key) if key else "all").get("removed"))

    def restore_clocks(self) -> bool:
        """Put clocks back that a job held and could not put back itself."""
        return bool(self._ask("restore-clocks").get("restored"))

    def read(self, path: str, *, limit_bytes: int) -> bytes:
        """A file there, fetched again when the connection breaks."""
        found: bytes = self._retrying(lambda: self.ssh.get(path, limit_bytes=limit_bytes), lambda share, text: None)
        return found

    def _send(self, work: Work, progress: Progress) -> str:
        folder = self._folder(work.key)
        done = self.status(work.key)
        if done.get("state") in {"done", "queued"} or done.get("alive"):
            return folder
        folders = sorted({str(PurePosixPath(folder, path).parent) for path in work.files} | {f"{folder}/results"})
        self._checked(["mkdir", "-p", "--", *folders])
        for number, (path, content) in enumerate(work.files.items()):
            progress(0.1 * number / len(work.files), f"sending {path}")
            self.ssh.put(content, f"{folder}/{path}")
        self.ssh.put(json.dumps(work.manifest).encode(), f"{folder}/manifest.json")
        self._ask("start", folder)
        return folder

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
                return act()
            except LostConnectionError as error:
                if time.monotonic() - began > self.patience_seconds:
                    raise DeviceError(
                        f"{error}. It was out of reach for {self.patience_seconds:.0f} s; what runs there goes on, "
                        "and the same command fetches it"
                    ) from None
                progress(0.1, "the connection broke; trying again")
                time.sleep(wait)
                wait = min(LONGEST_WAIT_SECONDS, wait * 1.5)

    def _ask(self, command: str, *words: str) -> dict[str, Any]:
        """Run a command of the board's script and read its answer."""
        done = self.ssh.run([self.python, self._sent_script(), command, *words], timeout_seconds=180, limit_bytes=2**20)
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
            self._checked(["mkdir", "-p", "--", self._root()])
            self.ssh.put(script, path)
            self._script = path
        return self._script

    def _root(self) -> str:
        if self._home is None:
            said = self._checked(["sh", "-c", 'printf "%s" "${EDGEPRESS_HOME:-$HOME/.cache/edgepress}"'])
            self._refuse_old_python()
            if not said.startswith("/") or len(said) > 1024 or any(ord(letter) < 32 for letter in said):
                raise DeviceError(f"{self.address}: no usable home folder there: {said[:100]!r}")
            self._home = said
        return self._home

    def _refuse_old_python(self) -> None:
        done = self.ssh.run([self.python, "-c", "import sys; print('%d %d' % sys.version_info[:2])"])
        words = done.text.split()
        if done.code != 0 or len(words) != 2 or not all(word.isdigit() for word in words):
            raise RuntimeMissingError(f"{self.address}: there is no python3 on the board (3.6 or newer is needed)")
        if (int(words[0]), int(words[1])) < OLDEST_PYTHON:
            raise RuntimeMissingError(f"{self.address}: python3 there is {'.'.join(words)}, and 3.6 is needed")

    def _folder(self, key: str) -> str:
        assert key.isalnum(), "keys are hexadecimal"
        return f"{self._root()}/jobs/{key}"

    def _checked(self, words: list[str]) -> str:
        done = self.ssh.run(words)
        if done.code != 0:
            raise DeviceError(f"{self.address}: {words[0]} failed there: {done.stderr.strip()[-300:]}")
        return done.text


class Results:
    """What a job left on the board: files that are fetched when they are asked for."""

    def __init__(self, device: Device, folder: str, names: tuple[str, ...]) -> None:
        self.device, self.folder, self.names = device, folder, names

    def read(self, name: str, *, limit_bytes: int = 512 * 2**20) -> bytes | None:
        """One file; None: the job left no such file."""
        if name not in self.names:
            return None
        return self.device.read(f"{self.folder}/results/{name}", limit_bytes=limit_bytes)

    def json(self, name: str) -> Any:
        """None: there is no such file. DeviceError: it is not JSON."""
        data = self.read(name, limit_bytes=64 * 2**20)
        if data is None:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DeviceError(f"{self.device.address}: {name} is damaged ({error})") from None
