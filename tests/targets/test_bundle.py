"""The folder for a board, run here with a stand-in for trtexec that keeps its arguments."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgepress.targets import profiles
from edgepress.targets.bundle import write_bundle
from edgepress.targets.errors import RecipeError, StageError
from edgepress.targets.half import is_half, to_half

Builder = Callable[..., Path]
Images = NDArray[np.float32]
NANO = profiles.load("jetson-nano")
ORIN = profiles.load("jetson-orin-nano")
ANSWER = np.arange(10, dtype=np.float32)[None]

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
        --exportTimes=*) echo '[]' >"${argument#*=}" ;;
        --exportOutput=*) cat >"${argument#*=}" <<END
[
{ "name" : "output"
  , "dimensions" : "1x10"
  , "values" : [ 0, 1, 2, 3, 4, 5, 6, 7, 8, ${TRTEXEC_LAST:-9.25} ]
}
]
END
        ;;
    esac
done
echo "[08/01/2022-10:00:00] [I] Latency: min = 1.5 ms, max = 2 ms, mean = 1.6 ms, median = 1.55 ms"
echo "[08/01/2022-10:00:00] [I] GPU Compute Time: min = 1.0 ms, max = 2 ms, mean = 1.3 ms, median = 1.25 ms"
echo "[08/01/2022-10:00:00] [I] Total GPU Compute Time: 3.0 s"
echo "&&&& PASSED"
"""


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
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
        return subprocess.run(
            ["sh", str(folder / "run.sh")], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def calls(tmp_path: Path) -> list[str]:
    """Every call of the stand-in but those that only ask for the version."""
    return [line for line in (tmp_path / "calls.txt").read_text().splitlines() if line != "--help"]


@pytest.fixture
def bundle(tmp_path: Path, network: Builder, images: Images) -> Path:
    return write_bundle(
        tmp_path / "bundle",
        {"baseline": network("base"), "pruned": network("small", channels=4)},
        profile=NANO,
        samples=images,
        expected={"baseline": ANSWER, "pruned": ANSWER},
    )


def test_the_script_is_valid_shell(bundle: Path) -> None:
    if shutil.which("sh") is None:
        pytest.skip("there is no POSIX shell here")
    subprocess.run(["sh", "-n", str(bundle / "run.sh")], check=True)
    text = (bundle / "run.sh").read_text()
    assert "@" not in text.replace('"$@"', "")
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


def test_the_bundle_says_that_it_has_not_run_on_hardware(bundle: Path) -> None:
    assert "not yet run on hardware" in (bundle / "README.txt").read_text().lower()
    assert "not yet run on hardware" in (bundle / "run.sh").read_text().lower()
    assert "Not yet run on hardware" in json.loads((bundle / "manifest.json").read_text())["note"]


def test_each_engine_is_built_and_timed_with_the_flags_of_its_version(
    bundle: Path, board: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = board(bundle)
    assert done.returncode == 0, done.stderr
    made = calls(tmp_path)
    assert len(made) == 8, "two variants, two precisions, a build and a timing for each"
    build, timing = made[2], made[3]
    assert build.startswith("--onnx=models/baseline.onnx --saveEngine=engines/baseline-fp16.part ")
    assert {"--workspace=512", "--fp16", "--buildOnly", "--shapes=input:1x3x8x8"} <= set(build.split())
    assert {
        "--loadEngine=engines/baseline-fp16.plan",
        "--loadInputs=input:inputs/sample.bin",
        "--exportTimes=results/baseline-fp16.times.json",
        "--duration=15",
    } <= set(timing.split())
    assert "--fp16" not in made[0]
    assert done.stderr == ""


def test_the_summary_has_latency_and_the_comparison_with_what_was_expected(
    bundle: Path, board: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert board(bundle).returncode == 0
    summary = (bundle / "results/summary.txt").read_text().splitlines()
    assert summary[:3] == [
        "baseline-fp32: GPU compute: min = 1.0 ms, max = 2 ms, mean = 1.3 ms, median = 1.25 ms",
        "baseline-fp32: with transfers: min = 1.5 ms, max = 2 ms, mean = 1.6 ms, median = 1.55 ms",
        "baseline-fp32: same first choice: yes, largest difference 0.25",
    ]


def test_an_engine_that_answers_otherwise_is_told(
    bundle: Path, board: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    board(bundle, TRTEXEC_LAST="-4")
    assert "same first choice: NO, largest difference 13" in (bundle / "results/summary.txt").read_text()
    board(bundle, TRTEXEC_LAST="9, 10")
    assert "answers 11 numbers where 10 were expected" in (bundle / "results/summary.txt").read_text()


def test_an_engine_that_fails_does_not_stop_the_others(
    bundle: Path, board: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = board(bundle, TRTEXEC_FAILS_ON="engines/baseline-fp16")
    assert done.returncode == 5
    assert "1 of the engines failed" in done.stderr
    summary = (bundle / "results/summary.txt").read_text()
    assert "baseline-fp16: could not be built, see results/baseline-fp16.build.log" in summary
    assert "pruned-fp16: GPU compute" in summary


def test_a_second_run_builds_nothing_again(
    bundle: Path, board: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    board(bundle)
    (tmp_path / "calls.txt").unlink()
    assert board(bundle).returncode == 0
    assert [call.split("=")[0] for call in calls(tmp_path)] == ["--loadEngine"] * 4


def test_a_damaged_folder_is_refused_by_name(
    bundle: Path, board: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (bundle / "inputs/sample.bin").write_bytes(b"")
    done = board(bundle)
    assert done.returncode == 1
    assert "inputs/sample.bin: FAILED" in done.stderr


def test_another_version_on_the_board_is_told(
    bundle: Path, board: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = board(bundle, TRTEXEC_CODE="8502")
    assert "written for TensorRT 8.2.1 (v8201), and the board has v8502" in done.stderr


def test_a_board_without_trtexec_is_told_what_to_install(
    bundle: Path, board: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    if Path("/usr/src/tensorrt/bin/trtexec").exists():
        pytest.skip("this machine has a trtexec of its own")
    done = board(bundle, PATH="/usr/bin:/bin")
    assert done.returncode == 3
    assert "install TensorRT with JetPack" in done.stderr


def test_a_quantised_file_becomes_one_int8_engine(tmp_path: Path, network: Builder, images: Images) -> None:
    models = {"baseline": network("base", batch=1), "int8": network("int8", activations=np.int8, batch=1)}
    folder = write_bundle(tmp_path / "b", models, profile=ORIN, samples=images, expected={})
    engines = {one["name"]: one for one in json.loads((folder / "manifest.json").read_text())["engines"]}
    assert list(engines) == ["baseline-fp32", "baseline-fp16", "int8-int8"]
    assert {"--int8", "--fp16", "--skipInference"} <= set(engines["int8-int8"]["build"])
    assert not any(flag.startswith("--shapes") for flag in engines["int8-int8"]["build"]), "the batch is fixed"
    assert engines["int8-int8"]["expected"] is None


def test_a_file_that_would_not_build_is_not_bundled(tmp_path: Path, network: Builder, images: Images) -> None:
    with pytest.raises(StageError, match=r"would not build on the board:\nint8\.onnx: .* no INT8 units"):
        write_bundle(
            tmp_path / "b", {"int8": network("int8", activations=np.int8)}, profile=NANO, samples=images, expected={}
        )
    assert not (tmp_path / "b").exists()


def test_a_bundle_is_written_over_a_bundle_and_over_nothing_else(
    bundle: Path, network: Builder, images: Images
) -> None:
    (bundle / "results").mkdir()
    (bundle / "results/summary.txt").write_text("measured on the board")
    write_bundle(bundle, {"other": network()}, profile=NANO, samples=images, expected={})
    assert [path.name for path in (bundle / "models").iterdir()] == ["other.onnx"]
    assert (bundle / "results/summary.txt").exists()
    assert "results" not in (bundle / "SHA256SUMS").read_text()
    with pytest.raises(RecipeError, match="holds other files than a bundle"):
        write_bundle(bundle / "models", {"other": network()}, profile=NANO, samples=images, expected={})


def test_a_name_that_the_shell_would_read_is_refused(tmp_path: Path, network: Builder, images: Images) -> None:
    with pytest.raises(RecipeError, match="cannot name a file"):
        write_bundle(tmp_path / "b", {"$(reboot)": network()}, profile=NANO, samples=images, expected={})


def test_a_board_of_many_lines_stays_in_its_comment(tmp_path: Path, network: Builder, images: Images) -> None:
    sly = NANO.model_copy(update={"board": "Nano\ntouch /tmp/sly"})
    folder = write_bundle(tmp_path / "b", {"a": network()}, profile=sly, samples=images, expected={})
    assert "# Written for Nano touch /tmp/sly, TensorRT 8.2.1" in (folder / "run.sh").read_text()


def test_only_tensorrt_has_bundles(tmp_path: Path, network: Builder, images: Images) -> None:
    with pytest.raises(RecipeError, match="a bundle is for TensorRT, and this one runs openvino"):
        write_bundle(
            tmp_path / "b", {"a": network()}, profile=profiles.load("openvino-cpu"), samples=images, expected={}
        )


def test_a_file_of_float16_tensors_is_built_in_fp16_alone(tmp_path: Path, network: Builder, images: Images) -> None:
    path = tmp_path / "pruned.onnx"
    path.write_bytes(to_half(onnx.load(network())).SerializeToString())
    folder = write_bundle(tmp_path / "bundle", {"pruned": path}, profile=NANO, samples=images, expected={})
    (engine,) = json.loads((folder / "manifest.json").read_text())["engines"]
    assert engine["precision"] == "fp16"
    assert "--fp16" in engine["build"]


def test_where_types_decide_fp16_is_a_file_of_its_own(tmp_path: Path, network: Builder, images: Images) -> None:
    eleven = ORIN.model_copy(update={"runtime_version": "11.1.0", "opset": 19})
    files = {"baseline": network("baseline", opset=19), "int8": network("int8", opset=19, activations=np.int8)}
    folder = write_bundle(tmp_path / "bundle", files, profile=eleven, samples=images, expected={"baseline": ANSWER})
    engines = {engine["name"]: engine for engine in json.loads((folder / "manifest.json").read_text())["engines"]}
    assert {name: engine["model"] for name, engine in engines.items()} == {
        "baseline-fp32": "models/baseline.onnx",
        "baseline-fp16": "models/baseline-fp16.onnx",
        "int8-int8": "models/int8.onnx",
    }
    assert not {"--fp16", "--int8"} & {flag for engine in engines.values() for flag in engine["build"]}
    assert engines["baseline-fp16"]["expected"] == "expected/baseline.txt"
    typed = {name: is_half(onnx.load(folder / engine["model"])) for name, engine in engines.items()}
    assert typed == {"baseline-fp32": False, "baseline-fp16": True, "int8-int8": False}
