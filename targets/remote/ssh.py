"""The way to a board: the system's own ssh, with the user's configuration, keys and known hosts.

Nothing here asks for a password or stores one, and every word for the board is quoted for its shell.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import DeviceError, LostConnectionError, RuntimeMissingError
from .address import Address
from .ssh_messages import explain

TRANSPORT_FAILED = 255  # ssh's own exit status: the command's are all smaller
CONNECT_SECONDS = 15
ALIVE_SECONDS = 10  # a peer that is silent three times so long is gone
MOST_BYTES = 256 * 2**20
CHUNK = 2**16
DAMAGED = 9  # exit status of WRITE where other bytes came than were sent
WRITE = """cat > "$1.part" || exit 1
sync "$1.part" 2>/dev/null
test "$(sha256sum < "$1.part" | cut -c 1-64)" = "$2" || exit 9
mv -f -- "$1.part" "$1"
"""
CONFIG = "EDGEPRESS_SSH_CONFIG"  # a configuration file in place of ~/.ssh/config


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command on the board said."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace")


class Ssh:
    """Commands and files to and from one board, over one connection that is kept open. A context manager."""

    def __init__(self, address: Address, *, command: Sequence[str] = ("ssh",)) -> None:
        """RuntimeMissingError: there is no ssh client."""
        if shutil.which(command[0]) is None:
            raise RuntimeMissingError("no ssh client: install OpenSSH's (openssh-client)")
        self.address = address
        self._command = tuple(command)
        self._folder = tempfile.mkdtemp(prefix="ep-")  # a short name: a socket's path has at most about 100 letters

    def __enter__(self) -> Ssh:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection that was kept open."""
        subprocess.run([*self._words(), "-O", "exit", "--", self.address.host], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self,
        words: Sequence[str],
        *,
        stdin: bytes | Path | Iterable[bytes] | None = None,
        timeout_seconds: float = 60.0,
        limit_bytes: int = MOST_BYTES,
        progress: Callable[[int], None] = lambda count: None,
    ) -> Done:
        """Run one command there. stdin: what it reads. limit_bytes: of what it may answer. progress: bytes sent.

        DeviceError: the board cannot be reached, or it did not answer in time. LostConnectionError: the connection
        broke; what runs detached goes on.
        """
        process = subprocess.Popen(
            [*self._words(), "--", self.address.host, shlex.join(words)],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        done = _Talk(process, stdin, limit_bytes=limit_bytes, progress=progress).finish(timeout_seconds)
        if done is None:
            raise DeviceError(f"{self.address}: no answer within {timeout_seconds:.0f} s to {words[0]}")
        if done.code == TRANSPORT_FAILED:
            raise self._trouble(done)
        return done

    def checked(self, words: Sequence[str], *, what: str, **options: Any) -> Done:
        """As `run`. DeviceError: it ended badly; what: it was, for the error."""
        done = self.run(words, **options)
        if done.code != 0:
            raise self._failure(what, done)
        return done

    def put(self, content: bytes | Path, remote: str) -> bool:
        """Write a file there, whole or not at all. False: it was there already, with the same content."""
        digest = _digest(content)
        if self.run(["sha256sum", "--", remote]).text.lstrip("\\").startswith(digest):
            return False
        done = self.run(
            ["sh", "-c", WRITE, "sh", remote, digest], stdin=content, timeout_seconds=time_for(size_of(content))
        )
        if done.code == DAMAGED:
            raise LostConnectionError(f"{self.address}: {remote} arrived damaged; it is sent again")
        if done.code != 0:
            raise self._failure(f"writing {remote}", done)
        return True

    def _failure(self, what: str, done: Done) -> DeviceError:
        return DeviceError(f"{self.address}: {what} failed: {done.stderr.strip()[-300:] or f'exit {done.code}'}")

    def _words(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": CONNECT_SECONDS,
            "ServerAliveInterval": ALIVE_SECONDS,
            "ServerAliveCountMax": 3,
            "ControlMaster": "auto",
            "ControlPath": f"{self._folder}/%C",
            "ControlPersist": 60,
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "RemoteCommand": "none",
            "RequestTTY": "no",
        }
        words = list(self._command)
        if os.environ.get(CONFIG):
            words += ["-F", os.environ[CONFIG]]
        words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        if self.address.user:
            words += ["-l", self.address.user]
        if self.address.port:
            words += ["-p", str(self.address.port)]
        return words

    def _trouble(self, done: Done) -> DeviceError:
        """What ssh said, as something to do about it."""
        return explain(done.stderr, self.address)


class _Talk:
    """Feeds a process and collects what it says, without letting either side wait for the other."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stdin: bytes | Path | Iterable[bytes] | None,
        *,
        limit_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        self.process, self.limit_bytes, self.progress = process, limit_bytes, progress
        self.stdout, self.stderr, self.is_too_long = bytearray(), bytearray(), False
        assert process.stdout is not None
        assert process.stderr is not None
        readers: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            (self._read, (process.stdout, self.stdout, limit_bytes)),
            (self._read, (process.stderr, self.stderr, 2**20)),
        ]
        if stdin is not None:
            readers.append((self._feed, (stdin,)))
        self.threads = [threading.Thread(target=target, args=given, daemon=True) for target, given in readers]
        for thread in self.threads:
            thread.start()

    def finish(self, timeout_seconds: float) -> Done | None:
        """None: it took longer than that, and was ended."""
        try:
            code = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        except BaseException:
            self.process.kill()
            raise
        for thread in self.threads:
            thread.join(timeout=10)
        if self.is_too_long:
            raise DeviceError(f"the board answered more than {self.limit_bytes >> 20} MiB, which is refused")
        return Done(code=code, stdout=bytes(self.stdout), stderr=self.stderr.decode("utf-8", "replace"))

    def _read(self, pipe: IO[bytes], into: bytearray, limit_bytes: int) -> None:
        with pipe:
            while chunk := pipe.read1(CHUNK):  # type: ignore[attr-defined]
                if len(into) + len(chunk) > limit_bytes:
                    self.is_too_long = into is self.stdout
                    self.process.kill()
                    return
                into.extend(chunk)

    def _feed(self, content: bytes | Path | Iterable[bytes]) -> None:
        assert self.process.stdin is not None
        sent = 0
        try:
            with self.process.stdin as pipe:
                for chunk in chunks(content):
                    pipe.write(chunk)
                    sent += len(chunk)
                    self.progress(sent)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the exit status says what happened


def chunks(content: bytes | Path | Iterable[bytes]) -> Iterator[bytes]:
    """The content in pieces that a pipe takes at once."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    elif isinstance(content, bytes):
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]
    else:
        yield from content


def size_of(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def time_for(size_bytes: int) -> float:
    """Seconds that sending may take: at 50 kB/s, which a poor wireless network still does."""
    return 60 + size_bytes / 50_000


def _digest(content: bytes | Path) -> str:
    digest = hashlib.sha256()
    for chunk in chunks(content):
        digest.update(chunk)
    return digest.hexdigest()
