"""`compress --device`: the whole job through a real ssh server on this machine, with real runtimes behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command import run
from sshd import Server, serve

from edgepress.pipeline import cli
from edgepress.pipeline.report import render, shaping
from edgepress.pipeline.report.schema import Report
from edgepress.targets.remote import measuring
from edgepress.targets.remote.device import Progress, Results
from edgepress.targets.remote.work import Work

pytestmark = [pytest.mark.device, pytest.mark.slow]

SHORT = [
    "--model=builtin:digits-student", "--data=builtin:digits", "--set=stages=[train,prune,quantize,export,profile]",
    "--set=train.epochs=2", "--set=train.lr=0.003", "--set=train.batch_size=64", "--set=prune.epochs=1",
    "--set=quantize.epochs=1", "--set=profile.seconds=1",
]  # fmt: skip


@pytest.fixture
def address(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(server.config))
    return server.address


def words_for(address: str, out: Path) -> list[str]:
    python = ["--device-python", sys.executable]
    return ["--target", "raspberry-pi-5", "--device", address, *python, "--out", str(out), *SHORT]


def measured_on(capsys: pytest.CaptureFixture[str], address: str, out: Path, *words: str) -> Report:
    code, _, said = run(capsys, *words_for(address, out), *words)
    assert code in (0, 4), said
    return render.read(out)


def test_a_run_is_measured_on_the_board(capsys: pytest.CaptureFixture[str], address: str, tmp_path: Path) -> None:
    report = measured_on(capsys, address, tmp_path / "out")
    assert report.variants[0].name == "baseline"
    for variant in report.variants:
        assert variant.latency_ms is not None
        assert variant.latency_ms.where == "device"
        assert variant.latency_ms.runtime == "onnxruntime"
        assert variant.accuracy is not None
        assert (variant.accuracy.where, variant.accuracy.n) == ("device", report.data.test if report.data else 0)
        assert variant.memory_mb is not None
        assert variant.parity is not None
        assert variant.parity.ok
        assert variant.layers is not None, "by ONNX Runtime's own counters there"
        assert variant.layers.total_ms > 0
        assert variant.int8 is not None or variant.precision != "int8"
    assert report.profile["device"] == address
    assert report.verdict.unreliable or report.budget["accuracy_drop"].met is not None
    assert report.bundle is None


@pytest.fixture(scope="module")
def trained(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: with other settings of its last stage, the same folder only measures again."""
    out = tmp_path_factory.mktemp("trained") / "out"
    before = os.environ.get("EDGEPRESS_SSH_CONFIG")
    os.environ["EDGEPRESS_SSH_CONFIG"] = str(server.config)
    try:
        assert cli.main([*words_for(server.address, out), "--quiet"]) in (0, 4)
    finally:
        os.environ.pop("EDGEPRESS_SSH_CONFIG")
        if before is not None:
            os.environ["EDGEPRESS_SSH_CONFIG"] = before
    return out


def jobs(server: Server) -> set[Path]:
    return set((server.board / "jobs").iterdir())


def test_pruning_works_towards_what_the_board_measures(
    capsys: pytest.CaptureFixture[str], server: Server, address: str, tmp_path: Path
) -> None:
    before = jobs(server) if (server.board / "jobs").is_dir() else set()
    options = ["--budget", "speedup=1.2", "--set=quantize=off", "--set=prune.blocks=false"]
    report = measured_on(capsys, address, tmp_path / "out", *options)
    found = shaping.found_in(report)
    assert found is not None
    assert found["measured_with"]["runtime"] == "onnxruntime"
    assert found["time_is"] == "measured"
    assert found["trials"]
    by_name = {variant.name: variant for variant in report.variants}
    assert by_name["pruned"].latency_ms is not None
    assert by_name["pruned"].latency_ms.where == "device"
    assert len(jobs(server) - before) == 1, "candidates left nothing there; the measurement at the end did"


def complete(report: Report) -> None:
    assert report.incomplete is None
    for variant in report.variants:
        assert variant.latency_ms is not None
        assert variant.accuracy is not None
        assert variant.memory_mb is not None


def test_a_connection_that_is_cut_in_every_phase_costs_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    server: Server,
    address: str,
    trained: Path,
) -> None:
    cut: list[str] = []
    keys: set[str] = set()

    class Cutting(measuring.Device):
        """Loses its connection as each phase begins."""

        def carry_out(self, work: Work, *, progress: Progress = lambda share, text: None) -> Results:
            keys.add(work.key)

            def and_cut(share: float, text: str) -> None:
                progress(share, text)
                phase = next((word for word in ("sending", "memory of", "in turn") if word in text), None)
                if phase is None and text in [engine["name"] for engine in work.manifest["engines"]]:
                    phase = "answers"
                if phase is not None and phase not in cut:
                    cut.append(phase)
                    server.cut()

            return super().carry_out(work, progress=and_cut)

        def fetch(self, folder: str, names: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
            if "fetching" not in cut:
                cut.append("fetching")
                server.cut()
            return super().fetch(folder, names, limit_bytes=limit_bytes)

    monkeypatch.setattr(measuring, "Device", Cutting)
    report = measured_on(capsys, address, trained, "--set=profile.seconds=0.8")
    complete(report)
    assert {"sending", "in turn", "fetching"} <= set(cut), "these are seen however slow the machine is"
    assert len(keys) == 1, "it was one job all the time"


def test_ctrl_c_leaves_the_job_there_and_the_same_command_picks_it_up(
    server: Server, address: str, trained: Path
) -> None:
    before = jobs(server)
    words = [sys.executable, "-m", "edgepress", *words_for(address, trained), "--set=profile.seconds=6"]
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def state() -> str | None:
        return next((said["state"] for job in jobs(server) - before if (said := status(job))), None)

    until(lambda: state() == "timing", first)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "goes on there" in " ".join(said.split())
    assert f"compress device clean {address}" in " ".join(said.split())
    (job,) = jobs(server) - before
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode in (0, 4), again.stderr
    complete(render.read(trained))
    assert jobs(server) - before <= {job}, "no second job was begun"


def test_of_two_runs_at_once_the_second_waits(server: Server, address: str, trained: Path, tmp_path: Path) -> None:
    before = jobs(server)
    outs = [tmp_path / "one", tmp_path / "two"]
    running = []
    for place, out in enumerate(outs):
        shutil.copytree(trained, out)
        words = [*words_for(address, out), f"--set=profile.seconds={2 + place / 10}"]
        running.append(subprocess.Popen([sys.executable, "-m", "edgepress", *words], stderr=subprocess.PIPE, text=True))
    told: set[str] = set()
    end = time.monotonic() + 150
    while any(one.poll() is None for one in running):
        states = [said for job in jobs(server) - before if (said := status(job))]
        told |= {str(one["text"])[:10] for one in states}
        assert sum(one["state"] in {"profiling", "timing", "answering"} for one in states) <= 1
        assert time.monotonic() < end
        time.sleep(0.05)
    for one, out in zip(running, outs, strict=True):
        assert one.stderr is not None
        with one.stderr:
            assert one.returncode in (0, 4), one.stderr.read()
        complete(render.read(out))
    assert "behind job" in told


def status(job: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((job / "status.json").read_text())
    except OSError:
        return None
    return found


def test_an_onnx_file_is_measured_on_the_board(capsys: pytest.CaptureFixture[str], address: str, trained: Path) -> None:
    models = [str(trained / f"models/{name}.onnx") for name in ("baseline", "pruned")]
    words = ["--device", address, "--device-python", sys.executable, "--seconds", "0.5", "--json"]
    code, printed, said = run(capsys, "profile", *models, "--target", "raspberry-pi-5", *words)
    found = json.loads(printed)
    assert (code, found["where"], found["runtime"]) == (0, "device", "onnxruntime"), said
    assert found["models"]["pruned"]["speedup"]["value"] > 0
    assert run(capsys, "profile", *models, "--device", address, "--sustained", "1min")[0] == 2


def test_the_board_is_described_and_swept(
    capsys: pytest.CaptureFixture[str], server: Server, address: str, trained: Path
) -> None:
    code, printed, _ = run(capsys, "device", "check", address, "--device-python", sys.executable, "--json")
    told = json.loads(printed)
    assert (code, told["device"], told["problems"]) == (0, address, [])
    assert "onnxruntime" in told["board"]["runtimes"]
    assert told["profiles"]  # which depends on the CPU that this runs on
    code, printed, _ = run(
        capsys, "device", "check", address, "--device-python", sys.executable, "--target", "jetson-nano"
    )
    assert code == 3
    assert "install TensorRT with JetPack" in " ".join(printed.split())
    assert run(capsys, "device", "unlock", address, "--device-python", sys.executable)[1].endswith(
        "edgepress holds nothing there\n"
    )
    assert (server.board / "jobs").exists()
    code, printed, _ = run(capsys, "device", "clean", address, "--device-python", sys.executable)
    assert (code, str(server.board) in printed) == (0, True)
    assert not server.board.exists() or not (server.board / "jobs").exists()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--target", "jetson-nano"], 3, "install TensorRT with JetPack"),
        (["--device-python", "/usr/bin/false"], 3, "there is no python3 on the board"),
        (["--lock-clocks"], 5, "holds the clocks of a Jetson, and this is none"),
        (["--device", "ssh://127.0.0.1:1"], 5, "no ssh server listens there"),
    ],
)
def test_a_board_that_does_not_do_is_told_before_any_work(
    capsys: pytest.CaptureFixture[str], address: str, tmp_path: Path, words: list[str], code: int, text: str
) -> None:
    out = tmp_path / "out"
    found, _, said = run(capsys, *words_for(address, out), *words)
    assert (found, text in said) == (code, True), said
    assert not (out / "stages").exists()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ssh://-oProxyCommand=x", "is no host"),
        ("ssh://me:secret@board", "holds no password"),
        ("board", "is no ssh address"),
        ("ssh://a b", "spaces"),
    ],
)
def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], address: str, words: str) -> None:
    code, _, said = run(capsys, "--device", address, "--dry-run")
    assert (code, words in said) == (2, True), said
    assert run(capsys, "device", "check", address)[0] == 2


def test_a_board_stands_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, "--device", "ssh://a", "--device", "ssh://a", "--dry-run")
    assert (code, "stands twice" in said) == (2, True)
    code, printed, _ = run(capsys, "--device", "ssh://a", "--device", "ssh://b", "--dry-run", "--json")
    assert (code, json.loads(printed)["device"]) == (0, ["ssh://a", "ssh://b"])


def test_two_boards_are_measured_and_both_must_be_faster(
    capsys: pytest.CaptureFixture[str], server: Server, address: str, trained: Path, tmp_path: Path
) -> None:
    with serve(tmp_path / "other") as other:
        with (other.folder / "config").open() as config:
            known = config.read()
        both = f"{known.replace(str(other.folder / 'user'), str(server.folder / 'user'))}"
        hosts = (other.folder / "known_hosts").read_text() + (server.folder / "known_hosts").read_text()
        (other.folder / "known_hosts").write_text(hosts)
        shutil.copy(server.folder / "user.pub", other.folder / "authorized")
        (other.folder / "config").write_text(both)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGEPRESS_SSH_CONFIG", str(other.config))
            report = measured_on(capsys, address, trained, "--device", other.address, "--set=profile.seconds=0.7")
        assert (other.board / "jobs").is_dir(), "it was asked; the job itself goes where the machine was too noisy"
    complete(report)
    (further,) = report.boards
    assert (report.profile["device"], further.device) == (address, other.address)
    assert [variant.name for variant in further.variants] == [variant.name for variant in report.variants]
    assert all(variant.latency_ms and variant.accuracy for variant in further.variants)
    assert further.variants[0].latency_ms != report.variants[0].latency_ms
    assert run(capsys, "verify", str(trained), "--no-measure")[0] == 0
    for name in ("report.html", "report.md"):
        assert "Measured on the device, " in (trained / name).read_text()
        assert other.address.rpartition(":")[2] in (trained / name).read_text()


def test_a_board_that_cannot_be_reached_gets_a_bundle_without_tensorrt_too(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, out := tmp_path / "out")
    words = ["--target", "raspberry-pi-5", "--out", str(out), *SHORT, "--set=profile.seconds=0.3"]
    assert run(capsys, *words, "--set=profile.all_cores=false")[0] in (0, 4)
    before = render.read(out)
    assert before.bundle == "bundle"
    assert {one.latency_ms.where for one in before.variants if one.latency_ms} <= {"stand-in"}
    done = subprocess.run(
        ["sh", str(out / "bundle/run.sh")], env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code, _, said = run(capsys, "import", str(out / "bundle/results.tar"), "--out", str(out))
    assert code in (0, 4), said
    report = render.read(out)
    complete(report)
    assert report.profile["device"] == "carried"
    for variant in report.variants:
        assert variant.latency_ms is not None
        assert (variant.latency_ms.where, variant.latency_ms.runtime) == ("device", "onnxruntime")
        assert variant.accuracy is not None
        assert variant.accuracy.n == (report.data.test if report.data else 0)
        assert variant.layers is not None
        assert variant.parity is not None
        assert variant.parity.ok


def until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not is_so():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)
