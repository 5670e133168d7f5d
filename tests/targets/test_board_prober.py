"""Candidates timed on a board, through a real ssh server on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sshd import Server

from edgepress.targets import profiles
from edgepress.targets.jobs import Engine
from edgepress.targets.remote.address import Address
from edgepress.targets.remote.device import Device
from edgepress.targets.remote.measuring import Board
from edgepress.targets.remote.probing import BoardProber

pytestmark = [pytest.mark.device, pytest.mark.slow]

Builder = Callable[..., Path]
Images = NDArray[np.float32]
TOOL = Path(__file__).with_name("fake_trtexec.py")


@pytest.fixture
def board(server: Server, monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(server.config))
    address = Address.parse(server.address)
    tool = server.folder / "trtexec"
    tool.write_text(f'#!/bin/sh\nexec env FAKE_TRT_CODE=8201 {sys.executable} {TOOL} "$@"\n')
    tool.chmod(0o755)
    with Device(address, python=sys.executable) as device:
        return Board(address=address, facts=device.probe(), python=sys.executable)


def engines(runtime: str, *paths: Path) -> list[Engine]:
    """Named as groups of layers may be."""
    names = ("baseline", "layer1.0.conv 8", "../b 'c' 4")
    return [Engine(name=name, path=path, runtime=runtime, precision="fp32")
            for name, path in zip(names, paths, strict=True)]  # fmt: skip


def jobs(server: Server) -> list[Path]:
    return list((server.board / "jobs").iterdir())


def test_candidates_are_told_by_their_own_names_and_leave_no_job_behind(
    server: Server, board: Board, network: Builder, images: Images, tmp_path: Path
) -> None:
    prober = BoardProber(board=board, profile=profiles.load("raspberry-pi-5"), sample=images[:1])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    told: list[str] = []
    given = engines("onnxruntime", network(batch=1), network("other", batch=1), broken)
    found = prober.probe(given, seconds=0.3, told=lambda text, share: told.append(text))
    assert set(found) == {engine.name for engine in given}
    for name in ("baseline", "layer1.0.conv 8"):
        latency = found[name].latency
        assert latency is not None
        assert latency.median_ms > 0
        assert (found[name].memory_mb or 0) > 0
    assert "INVALID_PROTOBUF" in (found["../b 'c' 4"].failed or "")
    assert told
    assert jobs(server) == []
    assert prober.identity["version"] == board.facts.runtimes["onnxruntime"]


def test_only_the_engine_that_all_are_compared_with_stays_on_a_board_that_builds(
    server: Server, board: Board, network: Builder, images: Images
) -> None:
    profile = profiles.load("jetson-nano").model_copy(update={"trtexec": {"rounds": 2}})
    prober = BoardProber(board=board, profile=profile, sample=images[:1])
    paths = [network(batch=1), network("other", batch=1, channels=4), network("third", batch=1, channels=12)]
    found = prober.probe(engines("tensorrt", *paths), seconds=0.3)
    assert [one.failed for one in found.values()] == [None] * 3
    assert all(one.latency is not None for one in found.values())
    assert len(list((server.board / "engines").glob("*.plan"))) == 1
    assert jobs(server) == []
    assert prober.identity["version"] == "8.2.1"
