"""A job with TensorRT from upload to figures, for every generation of its tool, with a stand-in for the tool."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sshd import Server
from token_model import tokens

from edgepress.targets import profiles, tracing
from edgepress.targets.errors import DeviceError
from edgepress.targets.figures import Measurement
from edgepress.targets.jobs import Engine
from edgepress.targets.remote import reading, work
from edgepress.targets.remote.address import Address
from edgepress.targets.remote.device import Device
from edgepress.targets.runtimes import target

pytestmark = [pytest.mark.device, pytest.mark.slow]

Builder = Callable[..., Path]
Images = NDArray[np.float32]
TOOL = Path(__file__).with_name("fake_trtexec.py")


def board(server: Server, **environment: str) -> None:
    """Put a tool on the board that behaves like that."""
    tool = server.folder / "trtexec"
    settings = " ".join(f"FAKE_TRT_{name.upper()}={value}" for name, value in environment.items())
    tool.write_text(f'#!/bin/sh\nexec env {settings} {sys.executable} {TOOL} "$@"\n')
    tool.chmod(0o755)


@pytest.fixture
def device(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(server.config))
    with Device(Address.parse(server.address), python=sys.executable, patience_seconds=30) as found:
        shutil.rmtree(server.board)  # engines are kept for further jobs, and here each test is the first
        server.board.mkdir()
        yield found


def measured(
    device: Device, paths: dict[str, Path], images: NDArray[Any], *, target_name: str, **options: Any
) -> Measurement:
    facts = device.probe()
    engines = [
        Engine(name=name, path=path, runtime="tensorrt", precision="int8" if "int8" in name else "fp32")
        for name, path in paths.items()
    ]
    planned = work.plan(
        engines, profile=profiles.load(target_name), facts=facts, inputs=images, seconds=0.5, rounds=3, **options
    )
    results = device.carry_out(planned)
    return reading.measurement(planned, results, facts=facts, splits={"test": len(images)}, threads=1)


@pytest.mark.parametrize(
    ("code", "version"),
    [("8201", "8.2.1"), ("8601", "8.6.1"), ("100300", "10.3.0"), ("101601", "10.16.1"), ("110100", "11.1.0")],
)
def test_every_generation_is_built_timed_asked_and_taken_apart(
    server: Server, device: Device, network: Builder, images: Images, code: str, version: str
) -> None:
    board(server, code=code)
    paths = {"baseline": network(batch=1), "int8": network("int8", batch=1, activations=np.int8)}
    found = measured(device, paths, images[:2], target_name="jetson-orin-nano")
    for name, figures in found.figures.items():
        assert figures.failed is None, figures.failed
        assert figures.latency is not None
        assert len(figures.latency.samples_ms) == 3
        assert figures.outputs is not None
        session = target("onnxruntime").load(paths[name], precision="fp32")
        here = np.concatenate([session(images[n : n + 1])[0] for n in range(2)])
        np.testing.assert_allclose(figures.outputs["test"], here, atol=1e-5)
    for name, in_int8 in {"baseline": [], "int8": ["conv"]}.items():
        told = found.figures[name].int8
        assert told is not None
        assert (told["int8_layers"], told["weighted_layers"]) == (len(in_int8), 2)
        times = tracing.trace(found.layers.times[name], paths[name])
        assert [layer.layer for layer in times.weighted(precision="int8")] == in_int8
        assert {layer.layer for layer in times.weighted()} == {"conv", "linear"}
        assert times.conversion_share == pytest.approx(1 / 3)
        assert times.runs == 9
    assert found.layers.problems == {}
    assert found.versions == {"tensorrt": version}


def test_engines_are_kept_for_the_next_job(server: Server, device: Device, network: Builder, images: Images) -> None:
    board(server, code="8201")
    paths = {"baseline": network(batch=1)}
    measured(device, paths, images[:1], target_name="jetson-nano", seed=1)
    plans = list((server.board / "engines").glob("*.plan"))
    times = [plan.stat().st_mtime_ns for plan in plans]
    assert len(plans) == 1
    measured(device, paths, images[:1], target_name="jetson-nano", seed=2)
    assert [plan.stat().st_mtime_ns for plan in (server.board / "engines").glob("*.plan")] == times


def test_a_gpu_without_int8_costs_only_the_quantised_engine(
    server: Server, device: Device, network: Builder, images: Images
) -> None:
    board(server, code="8201", sm="5.3")
    paths = {"baseline": network(batch=1), "int8": network("int8", batch=1, activations=np.int8)}
    found = measured(device, paths, images[:1], target_name="jetson-orin-nano")
    assert found.figures["baseline"].latency is not None
    assert "no INT8 units" in (found.figures["int8"].failed or "").replace("This GPU has no", "no")


def test_a_build_that_runs_out_of_memory_is_tried_with_a_smaller_workspace(
    server: Server, device: Device, network: Builder, images: Images
) -> None:
    board(server, code="8201", needs_mb="128")
    found = measured(device, {"baseline": network(batch=1)}, images[:1], target_name="jetson-nano")
    assert found.figures["baseline"].latency is not None


@pytest.mark.parametrize(("trouble", "words"), [("garbage", "wrote no engine"), ("killed", "out of memory")])
def test_a_build_that_fails_says_why(
    server: Server, device: Device, network: Builder, images: Images, trouble: str, words: str
) -> None:
    board(server, code="8201", trouble=trouble)
    with pytest.raises(DeviceError, match="no engine could be built"):
        measured(device, {"baseline": network(batch=1)}, images[:1], target_name="jetson-nano")
    logs = [path.read_text() for path in (server.board / "jobs").glob("*/results/build-baseline.json")]
    assert any(words in text for text in logs)


def test_a_build_that_failed_is_tried_again_by_the_same_call(
    server: Server, device: Device, network: Builder, images: Images
) -> None:
    paths = {"baseline": network(batch=1)}
    board(server, code="8201", trouble="killed")
    with pytest.raises(DeviceError, match="no engine could be built"):
        measured(device, paths, images[:1], target_name="jetson-nano")
    board(server, code="8201")
    found = measured(device, paths, images[:1], target_name="jetson-nano")
    assert found.figures["baseline"].latency is not None


def test_tokens_are_answered_there_as_they_are_here(server: Server, device: Device, tmp_path: Path) -> None:
    board(server, code="8201")  # which reads them as int32
    rows = np.arange(12).reshape(2, 6)
    found = measured(device, {"sum": tokens(tmp_path)}, rows, target_name="jetson-nano")
    assert found.figures["sum"].outputs is not None
    np.testing.assert_array_equal(found.figures["sum"].outputs["test"].ravel(), rows.sum(axis=1))


def test_a_board_without_the_tool_says_where_it_comes_from(
    server: Server, device: Device, network: Builder, images: Images
) -> None:
    (server.folder / "trtexec").unlink(missing_ok=True)
    with pytest.raises(DeviceError, match="install TensorRT with JetPack"):
        measured(device, {"baseline": network(batch=1)}, images[:1], target_name="jetson-nano")
