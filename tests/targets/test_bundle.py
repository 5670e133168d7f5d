"""The folder for a board, run here with a stand-in for trtexec that keeps its arguments."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepress.targets import profiles
from edgepress.targets.bundle import write_bundle
from edgepress.targets.errors import RecipeError, StageError
from edgepress.targets.jobs import Engine
from edgepress.targets.remote import carried, reading
from edgepress.targets.runtimes import target

Builder = Callable[..., Path]
Images = NDArray[np.float32]
Board = Callable[..., subprocess.CompletedProcess[str]]
NANO = profiles.load("jetson-nano").model_copy(update={"trtexec": {"workspace_mb": 512, "rounds": 2}})
ORIN = profiles.load("jetson-orin-nano")

# Writes what trtexec writes, in its own form, and one line of arguments for each call.
STAND_IN = r"""#!/bin/sh
echo "$*" >>"$TRTEXEC_LOG"
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v${TRTEXEC_CODE:-8201}] # $*"
for argument in "$@"; do
    case $argument in
        *"$TRTEXEC_FAILS_ON"*) [ -n "$TRTEXEC_FAILS_ON" ] && echo "&&&& FAILED" && exit 1 ;;
    esac
    case $argument in
        --saveEngine=*) echo engine >"${argument#*=}" ;;
        --exportTimes=*) echo '[{"latencyMs": 1.25}]' >"${argument#*=}" ;;
        --exportOutput=* | --exportProfile=* | --exportLayerInfo=*) echo '[]' >"${argument#*=}" ;;
    esac
done
echo "&&&& PASSED"
"""


def engines(**paths: Path) -> list[Engine]:
    """An engine of each file, quantised ones by their name."""
    return [
        Engine(name=name.replace("_", "-"), path=path, runtime="tensorrt", precision=_precision(name))
        for name, path in paths.items()
    ]


def _precision(name: str) -> str:
    return next((kind for kind in ("int8", "fp16") if name.endswith(kind)), "fp32")


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Runs a bundle's script as a board would: board(folder, TRTEXEC_CODE="8201", ...)."""
    if shutil.which("sh") is None or shutil.which("sha256sum") is None:
        pytest.skip("needs a POSIX shell and sha256sum")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "trtexec").write_text(STAND_IN)
    (tools / "trtexec").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"

    def run(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": path, "TRTEXEC_LOG": str(tmp_path / "calls.txt"), "TRTEXEC_FAILS_ON": "", **settings}
        environment["PYTHON"] = sys.executable
        return subprocess.run(
            ["sh", str(folder / "run.sh")], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def calls(tmp_path: Path, word: str = "") -> list[str]:
    """Calls of the stand-in, but those that only ask for the version."""
    lines = (tmp_path / "calls.txt").read_text().splitlines()
    return [line for line in lines if line != "--help" and word in line]


@pytest.fixture
def bundle(tmp_path: Path, network: Builder, images: Images) -> Path:
    base = network("base")
    made = engines(baseline=base, baseline_fp16=base, pruned=network("small", channels=4))
    write_bundle(tmp_path / "bundle", made, profile=NANO, samples=images[:2])
    return tmp_path / "bundle"


def test_the_script_is_valid_shell(bundle: Path) -> None:
    if shutil.which("sh") is None:
        pytest.skip("there is no POSIX shell here")
    subprocess.run(["sh", "-n", str(bundle / "run.sh")], check=True)
    assert "@" not in (bundle / "run.sh").read_text()
    assert os.access(bundle / "run.sh", os.X_OK)


def test_every_file_is_in_the_checksums(bundle: Path) -> None:
    listed = dict(
        reversed(line.split("  "))
        for line in (bundle / "SHA256SUMS").read_text().splitlines()  # type: ignore[misc]
    )
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    assert set(listed) == files
    assert all(hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest for name, digest in listed.items())


def test_the_sample_is_the_first_image_as_raw_floats(bundle: Path, images: Images) -> None:
    found = np.fromfile(bundle / "inputs/sample.bin", dtype=np.float32)
    np.testing.assert_array_equal(found, images[0].ravel())


def test_two_engines_of_one_file_share_it(bundle: Path) -> None:
    assert sorted(path.name for path in (bundle / "models").iterdir()) == ["baseline.onnx", "pruned.onnx"]


def test_the_bundle_says_that_it_has_not_run_on_hardware(bundle: Path) -> None:
    assert "not yet run on hardware" in (bundle / "README.txt").read_text().lower()
    assert "not yet run on hardware" in (bundle / "run.sh").read_text().lower()


def test_each_engine_is_built_and_timed_with_the_flags_of_its_version(
    bundle: Path, board: Board, tmp_path: Path
) -> None:
    done = board(bundle)
    assert done.returncode == 0, done.stderr
    builds, timings = calls(tmp_path, "--onnx="), calls(tmp_path, "--exportTimes=")
    assert (len(builds), len(timings)) == (3, 6), "three engines, in two rounds"
    assert builds[1].startswith(f"--onnx={bundle}/models/baseline.onnx --saveEngine={bundle}/kept/engines/")
    assert {"--workspace=512", "--fp16", "--buildOnly", "--shapes=input:1x3x8x8"} <= set(builds[1].split())
    assert all({"--loadInputs=input:inputs/sample.bin", "--iterations=200"} <= set(one.split()) for one in timings)
    assert "--fp16" not in builds[0]
    assert done.stderr == ""
    assert "baseline: median latency 1.250 ms" in done.stdout


def test_what_goes_back_is_one_archive_with_sums(bundle: Path, board: Board) -> None:
    assert board(bundle).returncode == 0
    with tarfile.open(bundle / "results.tar") as archive:
        found = {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    sums = json.loads(found.pop("sums.json"))
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    assert found["manifest.json"] == (bundle / "manifest.json").read_bytes()
    assert json.loads(found["probe.json"])["tensorrt_code"] == "8201"
    assert {"results/rounds.json", "results/times-pruned-1.json.gz", "results/build-baseline.log"} <= set(found)


def test_nothing_is_written_outside_of_the_bundle(bundle: Path, board: Board, tmp_path: Path) -> None:
    home = tmp_path / "home"  # runtimes that are imported to tell their version write there

    def outside() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if not {bundle, home} & {path, *path.parents}}

    before = outside()
    assert board(bundle, HOME=str(home)).returncode == 0
    assert outside() - before == {tmp_path / "calls.txt"}
    assert not list(home.rglob("*edgepress*"))


def test_an_engine_that_fails_does_not_stop_the_others(bundle: Path, board: Board, tmp_path: Path) -> None:
    done = board(bundle, TRTEXEC_FAILS_ON="--fp16")
    assert done.returncode == 5
    assert "1 of the engines failed" in done.stderr
    assert "baseline-fp16: could not be built (exit code 1), see results/build-baseline-fp16.log" in done.stdout
    assert "pruned: median latency" in done.stdout
    assert (bundle / "results.tar").is_file()


def test_a_second_run_builds_and_times_nothing_again(bundle: Path, board: Board, tmp_path: Path) -> None:
    board(bundle)
    (tmp_path / "calls.txt").write_text("")
    assert board(bundle).returncode == 0
    assert calls(tmp_path) == []


def test_a_damaged_folder_is_refused_by_name(bundle: Path, board: Board) -> None:
    (bundle / "inputs/sample.bin").write_bytes(b"")
    done = board(bundle)
    assert done.returncode == 1
    assert "inputs/sample.bin: FAILED" in done.stderr


def test_another_version_on_the_board_is_told(bundle: Path, board: Board) -> None:
    done = board(bundle, TRTEXEC_CODE="8502")
    assert "written for TensorRT v8201, and the board has v8502" in done.stderr


def test_a_board_without_trtexec_is_told_what_to_install(bundle: Path, board: Board) -> None:
    if Path("/usr/src/tensorrt/bin/trtexec").exists():
        pytest.skip("this machine has a trtexec of its own")
    done = board(bundle, PATH="/usr/bin:/bin")
    assert done.returncode == 3
    assert "install TensorRT with JetPack" in done.stderr


def test_a_board_without_python_is_told_what_to_install(bundle: Path) -> None:
    done = subprocess.run(
        ["sh", str(bundle / "run.sh")],
        env={"PATH": "/usr/bin:/bin", "PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "There is no no-such-python here: install it" in done.stderr


def test_a_quantised_file_is_built_with_int8_and_fp16(tmp_path: Path, network: Builder, images: Images) -> None:
    made = engines(baseline=network("base", batch=1), int8=network("int8", activations=np.int8, batch=1))
    write_bundle(tmp_path / "b", made, profile=ORIN, samples=images[:1])
    found = {one["name"]: one for one in json.loads((tmp_path / "b/manifest.json").read_text())["engines"]}
    assert list(found) == ["baseline", "int8"]
    assert {"--int8", "--fp16", "--skipInference"} <= set(found["int8"]["build"])
    assert not any(flag.startswith("--shapes") for flag in found["int8"]["build"]), "the batch is fixed"


def test_a_file_that_would_not_build_is_not_bundled(tmp_path: Path, network: Builder, images: Images) -> None:
    made = engines(int8=network("int8", activations=np.int8))
    with pytest.raises(StageError, match=r"would not build on the board:\nint8\.onnx: .* no INT8 units"):
        write_bundle(tmp_path / "b", made, profile=NANO, samples=images)
    assert not (tmp_path / "b").exists()


def test_a_bundle_is_written_over_a_bundle_and_over_nothing_else(
    bundle: Path, network: Builder, images: Images
) -> None:
    (bundle / "results").mkdir()
    (bundle / "results/log").write_text("measured on the board")
    write_bundle(bundle, engines(other=network()), profile=NANO, samples=images)
    assert [path.name for path in (bundle / "models").iterdir()] == ["other.onnx"]
    assert (bundle / "results/log").exists()
    assert "results" not in (bundle / "SHA256SUMS").read_text()
    with pytest.raises(RecipeError, match="holds other files than a bundle"):
        write_bundle(bundle / "models", engines(other=network()), profile=NANO, samples=images)


def test_a_name_that_the_shell_would_read_is_refused(tmp_path: Path, network: Builder, images: Images) -> None:
    made = [Engine(name="$(reboot)", path=network(), runtime="tensorrt", precision="fp32")]
    with pytest.raises(RecipeError, match="cannot name a file"):
        write_bundle(tmp_path / "b", made, profile=NANO, samples=images)


def test_a_board_of_many_lines_stays_in_its_comment(tmp_path: Path, network: Builder, images: Images) -> None:
    sly = NANO.model_copy(update={"board": "Nano\ntouch /tmp/sly"})
    write_bundle(tmp_path / "b", engines(a=network()), profile=sly, samples=images)
    assert "# Written for Nano touch /tmp/sly, TensorRT 8.2.1" in (tmp_path / "b/run.sh").read_text()


@pytest.mark.device
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_bundle_for_a_runtime_in_python_brings_back_what_a_board_over_ssh_does(
    tmp_path: Path, network: Builder, images: Images, board: Board, runtime: str
) -> None:
    pytest.importorskip(runtime)
    profile = profiles.load(f"{runtime}-cpu")
    made = [Engine(name=name, path=network(name), runtime=runtime, precision="fp32") for name in ("baseline", "other")]
    planned = write_bundle(tmp_path / "b", made, profile=profile, samples=images, seconds=0.2)
    assert f"pip install {runtime}" in (tmp_path / "b/README.txt").read_text()
    done = board(tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert "other: median latency" in done.stdout
    results = carried.open_archive(tmp_path / "b/results.tar")
    found = reading.measurement(planned, results, facts=results.facts, splits={"test": len(images)}, threads=1)
    session = target(runtime).load(network("other"), precision="fp32")
    for figures in found.figures.values():
        assert figures.failed is None
        assert figures.latency is not None
        assert figures.memory_mb is not None
        assert figures.outputs is not None
    np.testing.assert_allclose(found.figures["other"].outputs["test"], session(images)[0], atol=1e-5)  # type: ignore[index]
    assert set(found.layers.times) == {"baseline", "other"}


def test_a_board_without_the_runtime_is_told_which_python_to_name(
    tmp_path: Path, network: Builder, images: Images, board: Board
) -> None:
    made = [Engine(name="a", path=network(), runtime="openvino", precision="fp32")]
    write_bundle(tmp_path / "b", made, profile=profiles.load("openvino-cpu"), samples=images[:1])
    (tmp_path / "without").mkdir()
    (tmp_path / "without/openvino.py").write_text("raise ImportError")
    done = board(tmp_path / "b", PYTHONPATH=str(tmp_path / "without"))
    assert done.returncode == 3
    assert "openvino cannot be imported by" in done.stderr
    assert "PYTHON=/path/to/python sh run.sh" in done.stderr
