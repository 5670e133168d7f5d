"""A run with nothing but a trained network: refused where something is missing, and whole where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from without_data import MEAN, SHAPE, STD, net, stripes, teacher

import edgepress
from edgepress.pipeline import cli
from edgepress.pipeline.teachers import fingerprint
from edgepress.stages.synthesis.pool import Pool
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
    assert cli.main([*words, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["time"].startswith("images by fastdfkd")


def test_where_no_student_learns_images_are_made_to_calibrate(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--dry-run", "--set", "prune=off"]) == 0
    assert "images by zeroq" in " ".join(capsys.readouterr().out.split())


def test_a_plan_for_pictures_makes_nothing_and_finds_that_there_are_none(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(folder / f"{number}.png")
    assert cli.main([*words, "--data", f"images:{folder}", "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "what learns from 5 pictures of another kind: roughly" in said
    assert "fastdfkd" not in said
    assert cli.main([*words, "--data", f"images:{tmp_path / 'nothing'}", "--dry-run"]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_plan_for_a_pool_looks_at_it(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def planned(teacher: str, count: int = 40) -> tuple[int, str]:
        folder = tmp_path / f"{teacher[:4]}-{count}"
        pool = Pool(folder, shape=SHAPE, teacher=teacher, settings={"method": "cmi"})
        pool.add(torch.rand(count, *SHAPE), torch.zeros(count, dtype=torch.int64))
        code = cli.main([*words, "--data", f"cached:{folder}", "--dry-run"])
        told = capsys.readouterr()
        return code, " ".join((told.out + told.err).split())

    made: dict[str, Any] = {}
    exec(NETWORK, made)
    module = made["make"]()
    module.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    code, said = planned(fingerprint(module))
    assert code == 0
    assert "what learns from the 40 images of the pool: roughly" in said
    assert "cmi made the images of this pool" in said
    assert [code for code, _ in (planned("f" * 64), planned(fingerprint(module), 0))] == [2, 2]
    assert cli.main([*words, "--data", f"cached:{tmp_path / 'nothing'}", "--dry-run"]) == 2
    assert "there is no pool in" in capsys.readouterr().err


def test_a_plan_for_many_classes_says_how_few_images_each_has(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--set", "data.synthesis.images=20", "--dry-run"]) == 0
    assert "20 images for 2 classes are 10 of each" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "data.shape=null"], "data.shape (channels, height and width"),
        (["--set", "train.epochs=1"], "the train stage learns from labels"),
        (["--set", "data.mean=null"], "for example --set 'data.mean="),
        (["--set", "model.weights=null"], "comes without weights"),
        (["--set", "data.mean=[0.5, 0.5, 0.5]"], "3 values and data.shape says 1 channels"),
    ],
)
def test_what_only_the_user_knows_is_asked_for(
    words: list[str], capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert cli.main([*words, *more, "--dry-run"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def real(folder: Path, count: int = 100) -> str:
    """A source of real images that are only there to judge."""
    images, labels = stripes(count, seed=7)
    torch.save({"images": images, "labels": labels}, folder / "real.pt")
    (folder / "real.py").write_text(
        "import torch\n\ndef load():\n"
        f"    found = torch.load({str(folder / 'real.pt')!r}, weights_only=True)\n"
        "    return {'test': (found['images'].numpy(), found['labels'].numpy()), 'classes': ['0', '1']}\n"
    )
    return f"{folder / 'real.py'}:load"


@pytest.mark.slow
@pytest.mark.parametrize("is_judged", [True, False])
def test_the_whole_chain_runs_without_data_and_says_so(tmp_path: Path, *, is_judged: bool) -> None:
    settings: dict[str, Any] = {
        **SAYS, "data.synthesis": FEW, "prune.ratio": 0.3, "prune.epochs": 2, "quantize.epochs": 1,
        "profile.seconds": 0.2, "profile.all_cores": False, "profile.memory": False,
    }  # fmt: skip
    if is_judged:
        settings["data.eval"] = real(tmp_path, count=600)
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
    assert accuracy["n"] == (480 if is_judged else 26)
    assert report["data"]["deciding"] == (120 if is_judged else 0)
    by_real = "and variants on 120 others of the same source" in (found.folder / "report.md").read_text()
    assert by_real == is_judged
    assert (made["evaluated_on"] is not None) == is_judged
    first = (found.folder / "report.md").read_text()
    assert "No data of the task were used" in first
    assert ("cannot be known" in first) != is_judged
    if not is_judged:
        assert accuracy["value"] == 100.0  # the given network agrees with itself


@pytest.mark.slow
def test_controls_teach_the_same_student_on_noise_and_on_pictures_and_stand_beside_it(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).resize((16, 16)).save(pictures / f"{number}.png")
    controls = ["noise", f"images:{pictures}"]

    def run() -> dict[str, Any]:
        found = edgepress.compress(
            model=teacher(norms=False, width=24), student=net(seed=1, norms=False), data="none",
            target="onnxruntime-cpu", out=tmp_path / "out", quiet=True,
            settings={
                **SAYS, "data.synthesis": FEW, "data.eval": real(tmp_path), "data.controls": controls,
                "distill.epochs": 3, "prune": "off", "quantize": "off", "profile.seconds": 0.2,
                "profile.all_cores": False, "profile.memory": False,
            },
        )  # fmt: skip
        return dict(json.loads((found.folder / "report.json").read_text()))

    report = run()
    made = report["synthesis"]["controls"]
    assert [one["source"] for one in made] == ["generated", *controls]
    assert {one["n"] for one in made} == {100}
    by_name = {variant["name"]: variant for variant in report["variants"]}
    assert set(by_name) == {"baseline", "distilled"}  # a control is never exported, nor shipped
    assert made[0]["value"] == by_name["distilled"]["accuracy"]["value"]
    steps = {}
    for folder in (tmp_path / "out" / "controls").glob("distill-*"):
        facts = json.loads((folder / "artifact.json").read_text())
        steps[folder] = facts["record"]["settings"]["epochs"]
    assert len(steps) == 2
    assert min(steps.values()) > 3  # epochs of a pool are shorter than the rounds of a generator
    text = (tmp_path / "out" / "report.md").read_text()
    assert "by what taught it" in text
    again = run()["synthesis"]["controls"]
    assert [one["value"] for one in again] == [one["value"] for one in made]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "data.controls=[noise]"], "data.controls teach the student of the distill stage"),
        (["--set", "data.controls=[generated]"], "'generated' is no control: take noise, images:FOLDER"),
    ],
)
def test_controls_that_nobody_could_carry_out_are_refused_before_anything_is_made(
    words: list[str], capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert cli.main([*words, *more, "--dry-run"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "key", ["data.eval=imagefolder:real", "data.shape=[1,8,8]", "data.synthesis.images=64", "data.controls=[noise]"]
)
def test_what_is_for_want_of_data_is_refused_beside_data(capsys: pytest.CaptureFixture[str], key: str) -> None:
    assert cli.main(["--set", key, "--dry-run"]) == 2
    assert "is for source none" in " ".join(capsys.readouterr().err.split())


def test_a_network_in_memory_needs_the_same_facts(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.std"):
        edgepress.compress(model=teacher(norms=True), data="none", out=tmp_path, quiet=True)
