"""Jobs on a board: through a real ssh server on this machine, with real runtimes there."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sshd import Server

from edgepress.targets import layers, profiles
from edgepress.targets.errors import DeviceError, UnreachableError
from edgepress.targets.jobs import Engine
from edgepress.targets.remote import reading, work
from edgepress.targets.remote.address import Address
from edgepress.targets.remote.boards import BoardFacts, facts_of
from edgepress.targets.remote.device import Device
from edgepress.targets.remote.package import packed

pytestmark = pytest.mark.device

Builder = Callable[..., Path]
Images = NDArray[np.float32]


@pytest.fixture
def device(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(server.config))
    with Device(Address.parse(server.address), python=sys.executable, patience_seconds=30) as found:
        yield found


def job(device: Device, path: Path, images: Images, *, runtime: str = "onnxruntime", **options: Any) -> work.Work:
    profile = profiles.load(f"{runtime}-cpu")
    engines = [Engine(name=name, path=path, runtime=runtime, precision="fp32") for name in ("baseline", "other")]
    values: dict[str, Any] = {"seconds": 0.3, **options}
    return work.plan(engines, profile=profile, facts=device.probe(), inputs=images, **values)


def test_the_script_is_the_same_zip_every_time() -> None:
    first = packed()
    packed.cache_clear()
    assert packed() == first


def test_a_probe_says_what_the_board_is(device: Device, server: Server) -> None:
    facts = device.probe()
    assert facts.home == str(server.board)
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert facts.memory_mb > 500
    assert facts.disk_free_mb > 10
    assert "onnxruntime" in facts.runtimes
    assert (facts.l4t, facts.jetpack, facts.gpu, facts.has_int8) == (None, None, None, None)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_job_brings_back_times_memory_and_the_same_answers(
    device: Device, network: Builder, images: Images, runtime: str
) -> None:
    pytest.importorskip(runtime)
    planned = job(device, network(batch=1), images, runtime=runtime, seed=hash(runtime) % 1000)
    seen: list[tuple[float, str]] = []
    results = device.carry_out(planned, progress=lambda share, text: seen.append((share, text)))
    found = reading.measurement(
        planned, results, facts=device.probe(), splits={"val": 2, "test": len(images) - 2}, threads=1
    )
    baseline, other = found.figures["baseline"], found.figures["other"]
    for figures in (baseline, other):
        assert figures.failed is None
        assert figures.latency is not None
        assert figures.latency.count >= 20
        assert len(figures.latency.rounds_by_load) == 2
        assert figures.memory_mb is not None
        assert figures.memory_mb["peak"] >= figures.memory_mb["load"] > 10
        assert figures.cold_start_ms is not None
        assert set(figures.cold_start_ms) == {"runtime_ms", "load_ms", "first_ms"}
    assert baseline.outputs is not None
    from edgepress.targets.runtimes import target

    session = target(runtime).load(network(batch=1), precision="fp32")
    here = np.concatenate([session(images[n : n + 1])[0] for n in range(len(images))])
    np.testing.assert_allclose(np.concatenate([baseline.outputs["val"], baseline.outputs["test"]]), here, atol=1e-5)
    assert (found.layers.problems, set(found.layers.times)) == ({}, {"baseline", "other"})
    here_too = layers.read(
        Engine(name="here", path=network(batch=1), runtime=runtime, precision="fp32"), images[:1], seconds=0.01
    )
    there = found.layers.times["baseline"]
    kinds = [(layer.node, layer.kind, layer.precision, layer.role, layer.sources) for layer in there.layers]
    assert kinds == [(one.node, one.kind, one.precision, one.role, one.sources) for one in here_too.layers]
    assert there.total_ms > 0
    assert there.runs >= layers.LEAST_RUNS - layers.SKIPPED_RUNS
    assert baseline.int8 is not None
    assert (baseline.int8["int8_layers"], baseline.int8["weighted_layers"]) == (0, 2)
    assert [share for share, _ in seen] == sorted(share for share, _ in seen)


def test_results_are_fetched_together_and_each_only_once(
    device: Device, network: Builder, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = device.carry_out(job(device, network(batch=1), images, seed=8))
    fetched: list[list[str]] = []
    fetch = device.fetch
    monkeypatch.setattr(
        device, "fetch", lambda folder, names, **options: fetched.append(names) or fetch(folder, names, **options)
    )
    first, *others = results.names
    assert results.read(first) is not None
    assert all(results.read(name) is not None for name in others)
    assert fetched == [[first, *others]]
    assert results.read("never there") is None


def test_everything_is_removed_and_sent_again(device: Device, network: Builder, images: Images) -> None:
    assert device.clean() == device.probe().home
    assert device.carry_out(job(device, network(batch=1), images, seed=9)).json("timing-all.json")


def test_a_job_that_is_done_is_fetched_and_not_done_again(device: Device, network: Builder, images: Images) -> None:
    planned = job(device, network(batch=1), images, seed=7)
    device.carry_out(planned)
    updated = device.status(planned.key)["updated"]
    device.carry_out(planned)
    assert device.status(planned.key)["updated"] == updated


@pytest.mark.parametrize("after", [0.05, 0.3, 0.8, 1.5])
def test_a_connection_that_breaks_costs_nothing(
    device: Device, server: Server, network: Builder, images: Images, after: float
) -> None:
    planned = job(device, network(batch=1), images, seconds=1.0, seed=int(100 * after))
    timer = threading.Timer(after, server.cut)
    timer.start()
    try:
        results = device.carry_out(planned)
    finally:
        timer.join()
    assert results.json("timing-all.json")["samples_ms"]["other"]


def test_a_job_whose_process_is_killed_goes_on_where_it_was(device: Device, network: Builder, images: Images) -> None:
    planned = job(device, network(batch=1), images, seconds=2.0, seed=31)

    def kill() -> None:
        for _ in range(200):
            state = device.status(planned.key)
            if state.get("state") == "timing" and state["alive"]:
                os.killpg(state["pid"], signal.SIGKILL)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    results = device.carry_out(planned)
    thread.join()
    assert results.json("timing-all.json")["samples_ms"]["baseline"]


def test_a_board_that_cannot_be_reached_for_a_while_is_waited_for(
    device: Device, server: Server, network: Builder, images: Images
) -> None:
    planned = job(device, network(batch=1), images, seconds=1.0, seed=33)
    seen: list[str] = []

    def progress(share: float, text: str) -> None:
        if "in turn" in text and not seen:
            seen.append(text)
            server.stop()
        elif "trying again" in text and len(seen) == 1:
            seen.append(text)
        elif "trying again" in text and len(seen) == 2:
            seen.append(text)
            server.start()

    results = device.carry_out(planned, progress=progress)
    assert len(seen) == 3
    assert results.json("timing-all.json")["samples_ms"]["other"]


def test_a_board_that_was_never_reached_is_told_at_once(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(server.config))
    with Device(Address.parse("ssh://127.0.0.1:1")) as nobody, pytest.raises(UnreachableError, match="no ssh server"):
        nobody.probe()


def test_a_job_waits_behind_the_one_that_measures(
    device: Device, server: Server, network: Builder, images: Images
) -> None:
    planned = job(device, network(batch=1), images, seconds=0.2, seed=42)
    texts: list[str] = []
    with (server.board / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("abc")
        lock.flush()

        def progress(share: float, text: str) -> None:
            texts.append(text)
            if text == "behind job abc":
                fcntl.flock(lock, fcntl.LOCK_UN)

        results = device.carry_out(planned, progress=progress)
    assert "behind job abc" in texts
    assert results.json("timing-all.json")["samples_ms"]["other"]


def test_a_model_that_cannot_be_loaded_there_costs_only_itself(
    device: Device, network: Builder, images: Images, tmp_path: Path
) -> None:
    planned = job(device, network(batch=1), images, seed=51)
    broken = json.loads(json.dumps(planned.manifest))
    files = dict(planned.files)
    files["models/other.onnx"] = b"this is no model"
    broken["files"].append({"path": "models/other.onnx", "sha256": work._sha256(files["models/other.onnx"])})
    broken["engines"][1]["model"] = "models/other.onnx"
    planned = work.Work(key="ab51", manifest={**broken, "job": "ab51"}, files=files)
    results = device.carry_out(planned)
    found = reading.measurement(planned, results, facts=device.probe(), splits={"test": len(images)}, threads=1)
    assert found.figures["baseline"].latency is not None
    assert "INVALID_PROTOBUF" in (found.figures["other"].failed or "")


def test_what_was_left_there_is_removed_when_asked_and_nothing_else(
    device: Device, server: Server, network: Builder, images: Images
) -> None:
    planned = job(device, network(batch=1), images, seed=61)
    device.carry_out(planned)
    beside = server.board.parent / "not ours"
    beside.write_text("x")
    device.clean(planned.key)
    assert not (server.board / "jobs" / planned.key).exists()
    with pytest.raises(DeviceError, match="no folder of a job"):
        device._ask("clean", f"{server.board}/jobs/../..")
    assert beside.exists()


@pytest.mark.parametrize(
    "answer",
    [{}, {"python": 3}, {"python": "3.6", "home": "/h", "boot_id": "b", "cpus": -1}, {"python": "x" * 5000, "home": "/", "boot_id": ""}],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="cannot be read"):
        facts_of(answer, device="ssh://nano")


@pytest.mark.parametrize(
    ("release", "compatible", "jetpack", "gpu", "int8"),
    [
        ("# R32 (release), REVISION: 7.1, GCID: 1", ["nvidia,p3450-0000", "nvidia,tegra210"], "4.6.1", "5.3", False),
        ("# R36 (release), REVISION: 4.3, GCID: 1", ["nvidia,p3767-0005", "nvidia,tegra234"], "6.2", "8.7", True),
        ("# R99 (release), REVISION: 1.0", ["nvidia,tegra999"], None, None, None),
    ],
)
def test_a_jetson_is_known_by_its_release_and_chip(
    release: str, compatible: list[str], jetpack: str | None, gpu: str | None, int8: bool | None
) -> None:
    facts = BoardFacts(nv_tegra_release=release, compatible=compatible, python="3.6.9", home="/h", boot_id="b")
    assert (facts.jetpack, facts.gpu, facts.has_int8) == (jetpack, gpu, int8)
