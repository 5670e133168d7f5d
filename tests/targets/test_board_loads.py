"""On a board, too, engines are loaded several times, and what comes back says which rounds were of which load."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgepress.targets.errors import DeviceError
from edgepress.targets.remote import board as scripts
from edgepress.targets.remote.reading import _latency


class Board:
    """The script's own module, with engines that do nothing and are slower the more were loaded before them."""

    def __init__(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads: list[str] = []
        self.open: list[str] = []
        self.now = 0.0
        self.time = module._timing
        monkeypatch.setattr(module, "_load", self._load)
        monkeypatch.setattr(module, "sample_of", lambda folder, manifest: np.zeros(1, dtype=np.float32))
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def _load(self, folder: str, manifest: dict[str, Any], engine: dict[str, str]) -> Engine:
        self.loads.append(engine["name"])
        return Engine(self, engine["name"])


class Engine:
    def __init__(self, board: Board, name: str) -> None:
        self.board, self.name, self.seconds = board, name, 0.005 * (1 + 0.1 * len(board.open))
        board.open.append(name)

    def __call__(self, batch: Any) -> Any:
        self.board.now += self.seconds
        return batch

    def __del__(self) -> None:
        self.board.open.remove(self.name)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.syspath_prepend(str(next(iter(scripts.__path__))))
    before = set(sys.modules)
    import sessions

    for name in set(sys.modules) - before:
        monkeypatch.delitem(sys.modules, name)
    return Board(sessions, monkeypatch)


def timed(board: Board, *names: str, seconds: float) -> dict[str, Any]:
    manifest = {"seconds": seconds, "seed": 0, "runtime": "onnxruntime"}
    found: dict[str, Any] = json.loads(json.dumps(board.time("", manifest, [{"name": name} for name in names])))
    return found


@pytest.mark.parametrize(("seconds", "loads"), [(2.0, 2), (8.0, 4)])
def test_each_second_load_takes_the_opposite_order(board: Board, seconds: float, loads: int) -> None:
    told = timed(board, "a", "b", "c", seconds=seconds)
    orders = [board.loads[at : at + 3] for at in range(0, len(board.loads), 3)]
    assert len(orders) == loads == len(told["rounds_by_load"])
    assert all(later == earlier[::-1] for earlier, later in zip(orders[::2], orders[1::2], strict=True))
    assert board.open == []
    assert board.now >= seconds
    for name in "abc":
        found = _latency(told, name, threads=1)
        assert found is not None
        assert found.rounds_by_load == tuple(told["rounds_by_load"])
        assert list(found.visited_s) == sorted(found.visited_s)
        assert len(found.visited_s) == len(found.samples_ms)
    first, last = (_latency(told, name, threads=1) for name in "ac")
    assert first is not None
    assert last is not None
    assert first.mean_ms == pytest.approx(last.mean_ms, rel=0.03), "the place in the order cancels out"


def test_what_takes_longer_than_there_is_time_has_two_rounds_of_each_load(board: Board) -> None:
    assert timed(board, "a", seconds=0.001)["rounds_by_load"] == [2, 2]


@pytest.mark.parametrize("loads", [None, [], [1], [0, 3], [-1, 4], "three"])
def test_loads_that_do_not_add_up_are_not_believed(loads: Any) -> None:
    told = {"samples_ms": {"a": [[1.0], [1.0], [1.0]]}, "visited_s": {"a": [0, 1, 2]}, "rounds_by_load": loads}
    found = _latency(told, "a", threads=1)
    assert found is not None
    assert found.rounds_by_load == ()


def test_loads_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DeviceError, match="no number"):
        _latency({"samples_ms": {"a": [[1.0]]}, "rounds_by_load": [float("nan")]}, "a", threads=1)


def test_the_file_of_a_board_that_knew_one_load_is_read(tmp_path: Path) -> None:
    found = _latency({"samples_ms": {"a": [[1.0], [1.1]]}, "visited_s": {"a": [0, 1]}}, "a", threads=2)
    assert found is not None
    assert (found.count, found.rounds_by_load, found.threads) == (2, (), 2)
