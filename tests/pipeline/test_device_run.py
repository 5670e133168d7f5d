"""`compress --device`: the whole job through a real ssh server on this machine, with real runtimes behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import run
from sshd import Server, serve

from edgepress.pipeline.report import render
from edgepress.pipeline.report.schema import Report

pytestmark = [pytest.mark.device, pytest.mark.slow]

SHORT = [
    "--model=builtin:digits-student", "--data=builtin:digits", "--set=stages=[train,prune,quantize,export,profile]",
    "--set=train.epochs=2", "--set=train.lr=0.003", "--set=train.batch_size=64", "--set=prune.epochs=1",
    "--set=quantize.epochs=1", "--set=profile.seconds=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def address(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(server.config))
    return server.address


def measured_on(capsys: pytest.CaptureFixture[str], address: str, out: Path, *words: str) -> Report:
    code, _, said = run(
        capsys, "--device", address, "--device-python", sys.executable, "--out", str(out), *SHORT, *words
    )
    assert code in (0, 4), said
    return render.read(out)


def test_a_run_is_measured_on_the_board(capsys: pytest.CaptureFixture[str], address: str, tmp_path: Path) -> None:
    report = measured_on(capsys, address, tmp_path / "out", "--target", "raspberry-pi-5")
    assert [variant.name for variant in report.variants][0] == "baseline"
    for variant in report.variants:
        assert variant.latency_ms is not None
        assert variant.latency_ms.where == "device"
        assert variant.latency_ms.runtime == "onnxruntime"
        assert variant.accuracy is not None
        assert (variant.accuracy.where, variant.accuracy.n) == ("device", report.data.test if report.data else 0)
        assert variant.memory_mb is not None
        assert variant.parity is not None
        assert variant.parity.ok
    assert report.profile["device"] == address
    assert report.verdict.unreliable or report.budget["accuracy_drop"].met is not None
    assert report.bundle is None
