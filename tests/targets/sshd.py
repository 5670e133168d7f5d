"""A real ssh server on this machine, for this user alone, with keys made for the test."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVER = shutil.which("sshd") or (path if os.access(path := "/usr/sbin/sshd", os.X_OK) else None)


@dataclass
class Server:
    """Where it listens. config: a client's configuration that knows its key. board: home of whoever logs in."""

    port: int
    config: Path
    folder: Path
    board: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection, as a lost network does; the server listens on."""
        subprocess.run(["pkill", "-KILL", "-P", str(self.process.pid)], check=False)

    def stop(self) -> None:
        """As a board that is switched off."""
        self.cut()
        self.process.terminate()
        self.process.wait(10)

    def start(self) -> None:
        """Listen at the same place again."""
        assert SERVER is not None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([SERVER, "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log)
        _wait_for(self.port, self.process, self.folder / "log")


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Skips the test, with the reason, where there is no server to be had."""
    if SERVER is None:
        pytest.skip("no sshd on this machine (tests/run installs openssh-server where it has root)")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(folder / "user.pub", folder / "authorized")
    board = folder / "board"
    board.mkdir()
    port = _free_port()
    (folder / "sshd_config").write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile {folder}/pid
PermitRootLogin prohibit-password
SetEnv EDGEPRESS_HOME={board} EDGEPRESS_TRTEXEC={folder}/trtexec
LogLevel ERROR
"""
    )
    kind, key = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    (folder / "config").write_text(
        f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
        "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the server insists on it, whatever it is told
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SERVER, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    server = Server(port=port, config=folder / "config", folder=folder, board=board, process=process)
    try:
        _wait_for(port, process, folder / "log")
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text(errors='replace').strip()[-300:]}")
        time.sleep(0.05)
    pytest.skip("sshd did not listen within 20 s")
