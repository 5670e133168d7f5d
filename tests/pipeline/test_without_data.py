"""A run with nothing but a trained network: refused where something is missing, and whole where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from without_data import MEAN, SHAPE, STD, stripes, teacher

import edgepress
from edgepress.pipeline import cli
from edgepress.targets.errors import RecipeError

SAYS = {"data.shape": list(SHAPE), "data.mean": list(MEAN), "data.std": list(STD)}
FEW = {"images": 128, "width": 4, "latent": 8, "batch": 32, "rounds": 4, "restarts": 1, "steps": 2}
NETWORK = """
import torch

def make():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2),
    )
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A network in a file, with weights, and no data."""
    (tmp_path / "net.py").write_text(NETWORK)
    made: dict[str, Any] = {}
    exec(NETWORK, made)
    torch.save(made["make"]().state_dict(), tmp_path / "net.pt")
    says = [f"--set={key}={value}" for key, value in SAYS.items()]
    return ["--model", f"{tmp_path / 'net.py'}:make", "--weights", str(tmp_path / "net.pt"), "--data", "none", *says]


def test_a_plan_tells_how_long_it_will_take_and_by_which_method(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "data generated" in said
    assert "images by fastdfkd and what learns from them: roughly" in said


def test_where_no_student_learns_images_are_made_to_calibrate(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--dry-run", "--set", "prune=off"]) == 0
    assert "images by zeroq" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "data.shape=null"], "data.shape (channels, height and width"),
        (["--set", "train.epochs=1"], "the train stage learns from labels"),
        (["--set", "model.weights=null"], "comes without weights"),
        (["--set", "data.mean=[0.5, 0.5, 0.5]"], "3 values and data.shape says 1 channels"),
    ],
)
def test_what_only_the_user_knows_is_asked_for(
    words: list[str], capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert cli.main([*words, *more, "--dry-run"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize("is_judged", [True, False])
def test_the_whole_chain_runs_without_data_and_says_so(tmp_path: Path, *, is_judged: bool) -> None:
    settings: dict[str, Any] = {
        **SAYS, "data.synthesis": FEW, "prune.ratio": 0.3, "prune.epochs": 2, "quantize.epochs": 1,
        "profile.seconds": 0.2, "profile.all_cores": False, "profile.memory": False,
    }  # fmt: skip
    if is_judged:
        images, labels = stripes(100, seed=7)
        torch.save({"images": images, "labels": labels}, tmp_path / "real.pt")
        (tmp_path / "real.py").write_text(
            "import torch\n\ndef load():\n"
            f"    found = torch.load({str(tmp_path / 'real.pt')!r}, weights_only=True)\n"
            "    return {'test': (found['images'].numpy(), found['labels'].numpy()), 'classes': ['0', '1']}\n"
        )
        settings["data.eval"] = f"{tmp_path / 'real.py'}:load"
    found = edgepress.compress(
        model=teacher(norms=True, width=24), data="none", target="openvino-cpu", budget={"accuracy_drop": 100.0},
        settings=settings, out=tmp_path / "out", quiet=True,
    )  # fmt: skip
    report = json.loads((found.folder / "report.json").read_text())
    made = report["synthesis"]
    assert made["method"] == "fastdfkd"
    assert made["images"] == 128
    assert [stage["name"] for stage in report["stages"] if not stage["skipped"]] == [
        "prune", "quantize", "export", "profile"
    ]  # fmt: skip
    accuracy = report["variants"][0]["accuracy"]
    assert accuracy["n"] == (100 if is_judged else 26)
    assert (made["evaluated_on"] is not None) == is_judged
    first = (found.folder / "report.md").read_text()
    assert "No data of the task were used" in first
    assert ("cannot be known" in first) != is_judged
    if not is_judged:
        assert accuracy["value"] == 100.0  # the given network agrees with itself


@pytest.mark.parametrize("key", ["data.eval=imagefolder:real", "data.shape=[1,8,8]", "data.synthesis.images=64"])
def test_what_is_for_want_of_data_is_refused_beside_data(capsys: pytest.CaptureFixture[str], key: str) -> None:
    assert cli.main(["--set", key, "--dry-run"]) == 2
    assert "is for source none" in " ".join(capsys.readouterr().err.split())


def test_a_network_in_memory_needs_the_same_facts(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.std"):
        edgepress.compress(model=teacher(norms=True), data="none", out=tmp_path, quiet=True)
