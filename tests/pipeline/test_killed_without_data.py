"""A run without data whose process is killed, while images are made and while a student learns from more of them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from struck import start, wait_for
from without_data import MEAN, SHAPE, STD, teacher

pytestmark = pytest.mark.slow

NETS = """
import torch

def make(width=8):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.BatchNorm2d(width), torch.nn.ReLU(),
        torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.BatchNorm2d(width), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, 2),
    )

def small():
    return make(width=6)
"""
JOB = f"""
model: {{source: "nets.py:make", weights: net.pt}}
student: "nets.py:small"
data:
  source: none
  shape: {list(SHAPE)}
  mean: {list(MEAN)}
  std: {list(STD)}
  synthesis: {{method: fastdfkd, images: 2048, batch: 16, width: 8, latent: 8, rounds: 4, restarts: 1}}
target: onnxruntime-cpu
budget: {{accuracy_drop: 100}}
distill: {{epochs: 8, batch_size: 32}}
stages: [distill, export]
"""
MAKING = "out/cache/made-images/*/start-0/shard-000003.safetensors"
LEARNING = "out/stages/distill-*.part/pool/shard-000003.safetensors"
NO_TWO_ALIKE = ("images_per_second", "making_seconds")


def job(folder: Path) -> Path:
    (folder / "nets.py").write_text(NETS)
    (folder / "job.yaml").write_text(JOB)
    torch.save(teacher(norms=True).state_dict(), folder / "net.pt")
    return folder


def finished(folder: Path) -> dict[str, Any]:
    """What a run made, without its times."""
    process = start(folder, ["job.yaml", "--out", "out"])
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    report = json.loads((folder / "out" / "report.json").read_text())
    return {
        "images": {name: value for name, value in report["synthesis"].items() if name != "seconds"},
        "stages": [
            {name: value for name, value in stage["metrics"].items() if name not in NO_TWO_ALIKE}
            for stage in report["stages"]
        ],
        "curves": [stage["curves"] for stage in report["stages"]],
        "models": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("out/models/*.onnx")
        },
    }


def files(folder: Path) -> dict[Path, int]:
    """Shards that were written as a whole, and when."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("shard-*.safetensors")}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same run, to which nothing happened."""
    return finished(job(tmp_path_factory.mktemp("untouched")))


@pytest.mark.parametrize("moment", [MAKING, LEARNING], ids=["while images are made", "while a student learns"])
def test_a_killed_run_goes_on_with_the_pool_as_it_was_and_ends_the_same(
    tmp_path: Path, untouched: dict[str, Any], moment: str
) -> None:
    process = start(job(tmp_path), ["job.yaml", "--out", "out"])
    wait_for(moment, tmp_path, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (made,) = (path.parent for path in tmp_path.glob("out/cache/made-images/*/start-0/manifest.json"))
    state = json.loads((made / "manifest.json").read_text())
    there = files(made)
    kept = [made / shard["name"] for shard in state["shards"]][:-1]  # of the last one the maker's state may not know
    assert len(kept) >= 1
    assert finished(tmp_path) == untouched
    assert all(path.stat().st_mtime_ns == there[path] for path in kept)  # none of them was made again
    assert len(files(made)) == 128
