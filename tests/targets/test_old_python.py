"""The script for boards on the oldest Python that can be had: a Jetson Nano has 3.6."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_here import Board
from fake_tensorrt import CUDART, compiled, fake
from numpy.typing import NDArray

from edgepress.targets import profiles
from edgepress.targets.jobs import Engine
from edgepress.targets.remote import work
from edgepress.targets.remote.boards import BoardFacts, facts_of

pytestmark = pytest.mark.device

Images = NDArray[np.float32]


def oldest() -> tuple[str, str]:
    """Path and version of the oldest Python 3 from 3.6 on, in PATH or where pyenv puts them."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    places = [str(path) for path in sorted(pyenv.glob("3.*/bin/python3"))]
    places += [path for minor in range(6, 20) if (path := shutil.which(f"python3.{minor}"))]
    found = {}
    for place in places:
        asked = [place, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        version = tuple(int(part) for part in done.stdout.strip().split(".") if part)
        if done.returncode == 0 and version >= (3, 6):
            found[version] = place
    version = min(found)
    return found[version], ".".join(map(str, version))


@pytest.fixture(scope="module")
def python() -> tuple[str, str]:
    found = oldest()
    if not re.match(r"3\.[6-9]\.", found[1]):
        pytest.skip(f"the oldest Python here is {found[1]}")
    return found


@pytest.fixture
def board(python: tuple[str, str], tmp_path: Path) -> Iterator[Board]:
    (tmp_path / "board").mkdir()
    found = Board(tmp_path / "board", python=python[0])
    yield found
    found.close()


def carried_out(board: Board, path: Path, images: Images, **told: Any) -> str:
    """A whole job; the folder that it leaves."""
    facts = BoardFacts(python="3.6.9", home="/h", boot_id="b", tensorrt_code="8201", **told)
    engine = Engine(name="a", path=path, runtime="tensorrt", precision="fp32")
    planned = work.plan(
        [engine], profile=profiles.load("jetson-nano"), facts=facts, inputs=images, seconds=0.1, rounds=2
    )
    folder = board.send(planned)
    board.ask("start", folder)
    ended = board.ended(folder)
    assert ended["state"] == "done", ended["text"]
    return folder


def test_it_says_what_the_board_is(board: Board, python: tuple[str, str]) -> None:
    assert facts_of(board.ask("probe"), device="here").python == python[1]


def test_it_carries_a_job_from_files_to_results(board: Board, network: Callable[..., Path], images: Images) -> None:
    folder = carried_out(board, network(batch=1), images[:2])
    names = set(board.ask("status", folder)["results"])
    assert {"rounds.json", "build-a.json", "answers-a.json", "layers-a.json", "times-a-1.json.gz"} <= names
    asked = board.run("fetch", folder, stdin=b'["rounds.json"]')
    assert asked.startswith(b'{"name": "rounds.json"')
    assert board.ask("clean", "all") == {"removed": str(board.home)}


def test_it_answers_through_tensorrt_s_own_package(
    board: Board, network: Callable[..., Path], images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CUDART", str(compiled(tmp_path, CUDART)))
    (board.folder / "modules/tensorrt.py").write_text(fake("8.2.1"))
    folder = carried_out(board, network(batch=1), images[:3], runtimes={"tensorrt": "8.2.1"})
    assert board.result(folder, "answers-a.json") == {"file": "outputs-a.bin", "shape": [3, 2]}


def test_no_module_of_it_needs_more_than_python_3_6() -> None:
    """Syntax and library, by a tool that knows when each of them came."""
    vermin = pytest.importorskip("vermin", reason="vermin is not installed (pip install vermin)")
    folder = resources.files("edgepress.targets.remote") / "board"
    for module in folder.iterdir():
        if module.name.endswith(".py"):
            detected = vermin.visit(module.read_text(encoding="utf-8")).minimum_versions()
            assert detected[1] is not None, f"{module.name} runs on no Python 3"
            assert detected[1] <= (3, 6), f"{module.name} needs Python {detected[1]}"
