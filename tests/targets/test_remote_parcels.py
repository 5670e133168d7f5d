"""Files to and from a board: whole, asked for, or refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from board_here import Board

from edgepress.targets.errors import DeviceError, LostConnectionError
from edgepress.targets.remote.parcels import pack, unpack


def sums(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def packed(files: dict[str, bytes]) -> bytes:
    return b"".join(pack(dict(files), sums(files)))


FILES = {"a.json": b'{"x": 1}\n', "empty": b"", "b.gz": bytes(range(256)) * 1000}


def test_what_is_packed_comes_out_again(tmp_path: Path) -> None:
    assert unpack(packed(FILES), wanted=list(FILES), device="nano") == FILES
    (tmp_path / "b").write_bytes(FILES["b.gz"])
    assert b"".join(pack({**FILES, "b.gz": tmp_path / "b"}, sums(FILES))) == packed(FILES)


def test_a_file_that_was_changed_or_cut_on_the_way_is_fetched_again() -> None:
    data = packed(FILES)
    for damaged in (data[:-1], data[:-1] + b"x", b""):
        with pytest.raises(LostConnectionError, match="fetched again"):
            unpack(damaged, wanted=["b.gz", *FILES], device="nano")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (packed({"../../.ssh/authorized_keys": b"key"}), "which nobody asked for"),
        (json.dumps({"problem": "the job left no a.json"}).encode(), "nano: the job left no a.json"),
        (b"Traceback (most recent call last)", "no file came back"),
        (b"[" * 10_000, "no file came back"),
        (b'{"name": "a.json", "size": -5, "sha256": ""}\n', "what came back is no file"),
        (b'{"name": "a.json"}\n', "what came back is no file"),
        (b"[1]\n", "what came back is no file"),
    ],
)
def test_an_answer_that_holds_no_file_that_was_asked_for_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(DeviceError, match=words) as caught:
        unpack(data, wanted=["a.json"], device="nano")
    assert not isinstance(caught.value, LostConnectionError)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    (tmp_path / "board").mkdir()
    return Board(tmp_path / "board")


def offered(board: Board, files: dict[str, bytes]) -> tuple[str, list[str]]:
    manifest = {"schema": 1, "files": [{"path": name, "sha256": digest} for name, digest in sums(files).items()]}
    folder = str(board.home / "jobs" / "ab")
    return folder, board.ask("offer", folder, stdin=json.dumps(manifest).encode())["missing"]


@pytest.mark.parametrize("end", [b"", b"-" * 10], ids=["cut", "changed"])
def test_what_came_before_a_break_is_not_sent_again(board: Board, end: bytes) -> None:
    files = {"models/a.onnx": os.urandom(100_000), "inputs/0.bin": b"x" * 500, "inputs/1.bin": b"y" * 500}
    folder, missing = offered(board, files)
    assert missing == list(files)
    assert board.ask("receive", folder, stdin=packed(files)[:-10] + end) == {"received": 2, "damaged": "inputs/1.bin"}
    assert offered(board, files)[1] == ["inputs/1.bin"]
    assert sorted(path.name for path in Path(folder, "inputs").iterdir()) == ["0.bin"]
    assert board.ask("receive", folder, stdin=packed({"inputs/1.bin": files["inputs/1.bin"]})) == {"received": 1}
    assert offered(board, files)[1] == []
    assert {name: Path(folder, name).read_bytes() for name in files} == files


def test_a_file_that_was_not_announced_is_not_taken(board: Board) -> None:
    folder, _ = offered(board, {"a": b"a"})
    assert "is no file of this job" in board.ask("receive", folder, stdin=packed({"b": b"b"}))["problem"]
    assert not Path(folder, "b").exists()


def test_small_results_come_along_and_large_ones_when_they_are_asked_for(board: Board) -> None:
    folder, _ = offered(board, {})
    results = {"large": bytes(9 << 20), "a.json": b"1", "b.json": b"2"}
    for name, content in results.items():
        Path(folder, "results", name).write_bytes(content)

    def fetched(*names: str) -> dict[str, bytes]:
        return unpack(board.run("fetch", folder, stdin=json.dumps(names).encode()), wanted=names, device="nano")

    assert fetched("a.json", "large", "b.json") == {"a.json": b"1", "b.json": b"2"}
    assert fetched("large", "a.json") == {"large": results["large"]}
    with pytest.raises(DeviceError, match="the job left no nothing"):
        fetched("a.json", "nothing")
