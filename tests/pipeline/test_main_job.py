"""The main job as a user runs it: another process, the built-in example, everything real."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest
from noise import code_within_budget
from struck import start, wait_for

from edgepress.pipeline.report import render

pytestmark = pytest.mark.slow

QUICK = ["--set", "profile.seconds=2", "--set", "profile.all_cores=false", "--set", "profile.memory=false"]


def compress(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "edgepress", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def within_budget(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A run that meets its budget, as far as this machine is quiet enough to tell."""
    done = compress(folder, "--out", "out", *words)
    assert done.returncode == code_within_budget(render.read(folder / "out")), done.stderr
    return done


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("default")
    return folder, within_budget(folder)


def test_the_built_in_example_ends_with_a_table_a_report_and_the_models(
    default_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = default_run
    said = " ".join(done.stdout.split())
    for word in ("baseline", "pruned", "int8", "times faster", report(folder / "out")["verdict"]["sentence"]):
        assert word in said
    for name in (
        "report.json",
        "report.html",
        "report.md",
        "models/baseline.onnx",
        "models/int8.onnx",
        "models/int8.xml",
    ):
        assert (folder / "out" / name).is_file()


def test_its_report_fits_the_schema_and_every_figure_comes_from_the_device(
    default_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    found = report(default_run[0] / "out")
    jsonschema.validate(found, render.json_schema())
    assert found["variants"][0]["name"] == "baseline"
    for variant in found["variants"]:
        for figure in ("accuracy", "latency_ms", "memory_mb"):
            assert variant[figure]["where"] == "device"
        assert variant["accuracy"]["n"] == found["data"]["test"]
        assert variant["parity"]["argmax_agreement"] >= 0.98
        samples = sorted(sample for visit in variant["latency_ms"]["samples"] for sample in visit)
        median = variant["latency_ms"]["median"]
        assert samples[0] <= median <= samples[-1]
    assert {stage["name"]: stage["skipped"] for stage in found["stages"]} == dict.fromkeys(
        ("train", "distill", "prune", "quantize", "export", "profile")
    )


def test_its_int8_model_runs_in_int8_and_is_faster_than_the_baseline(
    default_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    variants = {variant["name"]: variant for variant in report(default_run[0] / "out")["variants"]}
    assert variants["int8"]["int8"]["int8_layers"] == variants["int8"]["int8"]["weighted_layers"] > 0
    assert variants["int8"]["speedup"]["value"] > 1.5
    assert variants["int8"]["size_bytes"] < variants["pruned"]["size_bytes"] < variants["baseline"]["size_bytes"]


def test_its_models_say_what_they_take(default_run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    from edgepress.stages.contract import InputContract

    model = onnx.load(default_run[0] / "out/models/int8.onnx")
    contract = InputContract.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    assert contract.shape == (1, 8, 8)
    assert contract.classes == tuple("0123456789")


def test_a_finished_run_is_rendered_again(default_run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = default_run
    before = (folder / "out/report.json").read_text()
    (folder / "out/report.html").unlink()
    assert "int8" in compress(folder, "report", "out").stdout
    assert (folder / "out/report.html").is_file()
    assert (folder / "out/report.json").read_text() == before


def test_a_second_run_reuses_every_stage_and_a_changed_setting_only_what_is_before_it(
    default_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = default_run
    first = report(folder / "out")
    within_budget(folder)
    again = report(folder / "out")
    holds = first["verdict"]["unreliable"] is None  # else it is measured again
    names = [stage["name"] for stage in again["stages"]]
    assert reused(again) == {name: holds or name != "profile" for name in names}
    assert (again["variants"] == first["variants"]) == holds
    compress(folder, "--out", "out", "--set", "quantize.epochs=0", *QUICK)
    assert reused(report(folder / "out")) == {
        "train": True,
        "distill": True,
        "prune": True,
        "quantize": False,
        "export": False,
        "profile": False,
    }


def reused(found: dict[str, Any]) -> dict[str, bool]:
    return {stage["name"]: stage["reused"] for stage in found["stages"]}


def test_a_missed_budget_is_exit_code_4_and_a_sentence(
    default_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = default_run
    done = compress(folder, "--out", "out", "--budget", "size_mb=0.001", *QUICK)
    assert done.returncode == 4
    assert "budget missed" in done.stdout


def test_json_on_standard_output_is_the_report(default_run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = compress(default_run[0], "--out", "out", "--json", "--quiet")
    jsonschema.validate(json.loads(done.stdout), render.json_schema())
    assert done.stderr == ""


@pytest.fixture
def elsewhere(default_run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    """A folder in which the example was trained and pruned already, which is the same for every target."""
    for stage in ("train", "distill", "prune"):
        (done,) = default_run[0].glob(f"out/stages/{stage}-*")
        shutil.copytree(done, tmp_path / "out/stages" / done.name)
    return tmp_path


def taken_over(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A run for another target that meets its budget and trains nothing again but what the target asks for."""
    done = within_budget(folder, *words, *QUICK)
    assert {stage for stage, old in reused(report(folder / "out")).items() if old} >= {"train", "distill"}
    return done


def test_the_nano_gets_fp16_without_quantise_nodes_a_bundle_and_no_claims(elsewhere: Path) -> None:
    done = taken_over(elsewhere, "--target", "jetson-nano")
    found = report(elsewhere / "out")
    assert "not known" in done.stdout
    assert found["verdict"]["met"] is None
    for variant in found["variants"]:
        assert variant["latency_ms"]["where"] == "stand-in"
        assert "int8" not in variant["name"]
    for path in (elsewhere / "out/models").glob("*.onnx"):
        model = onnx.load(path)
        assert [entry.version for entry in model.opset_import if entry.domain == ""] == [13]
        assert not {node.op_type for node in model.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    weights = {
        t.data_type for t in onnx.load(elsewhere / "out/models/pruned.onnx").graph.initializer if len(t.dims) > 1
    }
    assert weights == {onnx.TensorProto.FLOAT16}
    assert (elsewhere / "out/bundle/run.sh").is_file()
    subprocess.run(["sh", "-n", str(elsewhere / "out/bundle/run.sh")], check=True)


def test_the_orin_gets_symmetric_bytes_and_a_bundle(elsewhere: Path) -> None:
    taken_over(elsewhere, "--target", "jetson-orin-nano")
    graph = onnx.load(elsewhere / "out/models/int8.onnx").graph
    zeros = {node.input[2] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    assert zeros
    assert all(tensors[name].dtype.name == "int8" and not tensors[name].any() for name in zeros)


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "x86-avx2"])
def test_the_other_cpu_targets_run_to_the_end(elsewhere: Path, target: str) -> None:
    taken_over(elsewhere, "--target", target, "--budget", "accuracy_drop=50")
    found = report(elsewhere / "out")
    quantized = next(variant for variant in found["variants"] if variant["name"] == "int8")
    assert quantized["parity"]["argmax_agreement"] >= 0.95
    assert quantized["int8"]["int8_layers"] >= 1
    bits = next(stage for stage in found["stages"] if stage["name"] == "quantize")["metrics"]["weight_bits"]
    assert target != "x86-avx2" or bits == 7


def untimed(folder: Path) -> dict[str, Any]:
    """What a run made, without its times and its memory: the report, and a digest of each model."""
    found = report(folder)
    return {
        "id": found["run"]["id"],
        "recipe": found["run"]["recipe"],
        "data": found["data"],
        "stages": [
            {
                "name": stage["name"], "settings": stage["settings"], "curves": stage["curves"], "skipped": stage["skipped"],
                "metrics": {key: value for key, value in stage["metrics"].items() if key != "images_per_second"},
            }
            for stage in found["stages"]
        ],
        "variants": found["variants"],
        "models": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("models/*.onnx")},
    }  # fmt: skip


# Every training that can be struck, on few images; what is measured of the result would be the same without the blow.
STRUCK = """
model: builtin:digits-student
data: {source: builtin:digits, augment: [shift], limit: 300}
target: openvino-cpu
budget: {accuracy_drop: 50}
train: {epochs: 6, lr: 3.0e-3, batch_size: 64}
prune: {ratio: 0.3, epochs: 5, lr: 2.0e-3, batch_size: 64}
quantize: {mode: qat, epochs: 5, batch_size: 64}
stages: [train, prune, quantize, export]
"""


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same run, to which nothing happened."""
    folder = tmp_path_factory.mktemp("untouched")
    (folder / "job.yaml").write_text(STRUCK)
    within_budget(folder, "job.yaml")
    return untimed(folder / "out")


@pytest.mark.parametrize(
    ("stage", "blow"), [("train", signal.SIGKILL), ("prune", signal.SIGKILL), ("quantize", signal.SIGINT)]
)
def test_a_killed_run_goes_on_from_its_last_epoch_and_ends_the_same(
    tmp_path: Path, untouched: dict[str, Any], stage: str, blow: signal.Signals
) -> None:
    (tmp_path / "job.yaml").write_text(STRUCK)
    process = start(tmp_path, ["job.yaml", "--out", "out"])
    wait_for(f"out/stages/{stage}-*.part/training.safetensors", tmp_path, process)
    os.kill(process.pid, blow)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == (130 if blow == signal.SIGINT else -blow), output
    if blow == signal.SIGINT:
        assert "the same command goes on" in output
    done = within_budget(tmp_path, "job.yaml")
    assert "reused" in done.stderr or stage == "train"
    found = untimed(tmp_path / "out")
    assert len(found["models"]) == 4
    assert found == untouched
