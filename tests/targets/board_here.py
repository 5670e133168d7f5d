"""The script for a board, run on this machine without ssh, with stand-ins for the runtimes that it finds there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepress.targets.remote.package import packed
from edgepress.targets.remote.parcels import pack
from edgepress.targets.remote.work import Work

# Keeps its arguments; fails where they hold a line of the file `fails`, and waits where they hold one of `hangs`.
TOOL = """#!/bin/sh
echo "$*" >>"$HERE/calls"
case "$*" in *--help*) exit 0 ;; esac
while echo "$*" | grep -qF -f "$HERE/hangs"; do sleep 0.05; done
if echo "$*" | grep -qF -f "$HERE/fails"; then exit 3; fi
for argument in "$@"; do
    case $argument in --save*=* | --export*=*) echo '[]' >"${argument#*=}" ;; esac
done
echo "$*" >>"$HERE/ended"
"""

# As much of ONNX Runtime as the script calls, and the same two files.
RUNTIME = """
import os, sys, time
HERE, PART = os.environ["HERE"], sys.argv[-1]
def holds(name, text):
    with open(os.path.join(HERE, name)) as file:
        return any(line.strip() in text for line in file)
class SessionOptions: pass
class Input: name = "input"
class InferenceSession:
    def __init__(self, path, options, providers):
        with open(os.path.join(HERE, "calls"), "a") as file:
            file.write(PART + " " + path + chr(10))
        while holds("hangs", PART): time.sleep(0.05)
        if holds("fails", path): raise SystemExit("broken: " + path)
    def get_inputs(self): return [Input]
    def run(self, names, feeds): return [feeds["input"][:, 0, 0]]
"""


@dataclass
class Board:
    """home: where the script keeps everything. folder: of the stand-ins and what they write. python: that runs it."""

    folder: Path
    python: str = sys.executable

    def __post_init__(self) -> None:
        self.home.mkdir()
        self.script.write_bytes(packed())
        (self.folder / "trtexec").write_text(TOOL)
        (self.folder / "trtexec").chmod(0o755)
        (self.folder / "modules").mkdir()
        (self.folder / "modules/onnxruntime.py").write_text(RUNTIME)
        self.trouble()
        self.forget_calls()

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def script(self) -> Path:
        return self.folder / "board.pyz"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HERE": str(self.folder),
            "EDGEPRESS_HOME": str(self.home),
            "EDGEPRESS_TRTEXEC": str(self.folder / "trtexec"),
            "PYTHONPATH": str(self.folder / "modules"),
        }

    def trouble(self, *, fails: Sequence[str] = (), hangs: Sequence[str] = ()) -> None:
        """From now on, calls with these words fail, and those with the others wait until they are taken away."""
        for name, words in (("fails", fails), ("hangs", hangs)):
            part = self.folder / f"{name}.part"
            part.write_text("".join(f"{word}\n" for word in words))
            part.replace(self.folder / name)

    def calls(self, word: str = "") -> list[str]:
        return [line for line in (self.folder / "calls").read_text().splitlines() if word in line]

    def forget_calls(self) -> None:
        (self.folder / "calls").write_text("")

    def run(self, *words: str, stdin: bytes = b"") -> bytes:
        asked = [self.python, str(self.script), *words]
        return subprocess.run(asked, input=stdin, env=self.environment, capture_output=True, check=True).stdout

    def ask(self, *words: str, stdin: bytes = b"") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(*words, stdin=stdin))
        return found

    def inside(self, code: str, *words: str, stdin: bytes = b"") -> Any:
        """What Python code prints that runs among the script's own modules, as JSON."""
        begin = "import sys, json, subprocess; sys.path.insert(0, sys.argv[1]); del sys.argv[0]; import jobs\n"
        asked = [self.python, "-c", begin + code, str(self.script), *words]
        done = subprocess.run(asked, input=stdin, env=self.environment, capture_output=True, check=True, timeout=60)
        return json.loads(done.stdout)

    def send(self, work: Work) -> str:
        """Put a job there, as a device does; the job's folder."""
        folder = str(self.home / "jobs" / work.key)
        missing = self.ask("offer", folder, stdin=json.dumps(work.manifest).encode())["missing"]
        sums = {entry["path"]: entry["sha256"] for entry in work.manifest["files"]}
        stream = b"".join(pack({path: work.files[path] for path in missing}, sums))
        assert self.ask("receive", folder, stdin=stream) == {"received": len(missing)}
        return folder

    def ended(self, folder: str) -> dict[str, Any]:
        """The job's status once nobody works on it any more."""
        self.until(lambda: not self.ask("status", folder)["alive"])
        return self.ask("status", folder)

    def until(self, is_so: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < end, f"it did not come to that: {self.calls()[-3:]}"
            time.sleep(0.05)

    def result(self, folder: str, name: str) -> Any:
        return json.loads(Path(folder, "results", name).read_bytes())

    def kill(self, status: Mapping[str, Any]) -> None:
        """End a worker as a board does that runs out of memory: it cannot say a word."""
        os.killpg(status["pid"], signal.SIGKILL)

    def close(self) -> None:
        """Let nothing go on behind a test's back."""
        self.trouble()
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("clean", "all")
