"""The benchmarks of quantisation and coverage run, in their shortest form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *words], capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_at_least_sixty_architectures_of_the_families_that_people_deploy_are_listed() -> None:
    lines = run("coverage.py", "--list").stdout.splitlines()
    assert len(set(lines)) == len(lines) >= 60
    families = {line.partition(":")[0] for line in lines}
    assert families >= {"ResNet", "MobileNet", "EfficientNet", "GhostNet", "ViT", "DeiT", "Swin", "MobileViT",
                        "segmentation", "detection", "sound", "text"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.device
def test_a_network_goes_through_the_whole_chain_and_is_not_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    said = run("coverage.py", "--only", "keywords-conv1d", "--json", str(file)).stdout
    (row,) = json.loads(file.read_text())["networks"]
    assert row["status"] == "whole", row["reason"]
    assert row["agreement"] > 0.5
    assert row["in_int8"][1] == 5
    assert "1 networks tried of 1: 1 whole (100 %)" in said
    before = file.read_text()
    run("coverage.py", "--only", "keywords-conv1d", "--json", str(file))
    assert file.read_text() == before


@pytest.mark.slow
@pytest.mark.device
def test_each_part_of_the_quantisation_benchmark_writes_its_figures_down(tmp_path: Path) -> None:
    weights, data = a_network_and_its_data(tmp_path)
    file = tmp_path / "rows.json"
    run(
        "quantization.py", "--quick", "--data", data, "--teacher", weights, "--json", str(file),
    )  # fmt: skip
    figures = {row["name"]: row["figures"] for row in json.loads(file.read_text())["runs"]}
    assert {"accuracy float", "accuracy w8", "accuracy w7"} <= set(figures["bits"])
    assert figures["step"]["times float32"] == 1.0
    assert figures["step"]["MB openvino"] > 0
    assert figures["step"]["times openvino"] > 0
    assert {name for name in figures if "MNIST" in name or "MobileNet" in name}
    for name, found in figures.items():
        if " in " in name:
            assert {"ms float", "ms ours", "ms ORT u8s8", "ours over ORT default"} <= set(found)


@pytest.mark.slow
@pytest.mark.device
def test_the_whole_chain_stands_beside_tools_that_only_quantise(tmp_path: Path) -> None:
    weights, data = a_network_and_its_data(tmp_path)
    file = tmp_path / "rows.json"
    said = run(
        "whole_chain.py", "--quick", "--net", "resnet20", "--data", data, "--weights", weights, "--json", str(file)
    ).stdout
    (row,) = json.loads(file.read_text())["runs"]
    figures = row["figures"]
    assert figures["images"] == 64, "16 of the 80 choose in the jobs"
    for runtime in ("openvino", "onnxruntime"):
        teacher, shipped = (f"{runtime}: {name}" for name in ("teacher, float32", "edgepress, shipped"))
        assert figures[f"{teacher} over {teacher}"] == 1
        assert figures[f"{shipped} over {teacher}"] > 0
        assert figures[f"{shipped} over {runtime}: ORT u8s8"] > 0
        assert figures[f"{shipped} drop low"] <= figures[f"{shipped} drop"] <= figures[f"{shipped} drop high"]
        assert f"resnet20 in {runtime}, 64 test images" in said
    assert said.count("(goal 2: ") == 2


def a_network_and_its_data(folder: Path) -> tuple[str, str]:
    """Weights of a ResNet-20 that has learned nothing, and noise of two classes."""
    sys.path.insert(0, str(BENCHMARKS))
    from distill_nets import resnet20

    torch.manual_seed(0)
    save_file(resnet20(2).state_dict(), folder / "net.safetensors")
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("test", 40)):
        for label in "ab":
            (folder / "data" / split / label).mkdir(parents=True)
            for place in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "data" / split / label / f"{place}.png")
    return str(folder / "net.safetensors"), f"imagefolder:{folder / 'data'}"
