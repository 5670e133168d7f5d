"""Teachers in a recipe: what can be written, where paths start from, and what an earlier run gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgepress.pipeline import plan, recipe
from edgepress.pipeline.api import compress
from edgepress.pipeline.start import Start, open_start
from edgepress.pipeline.store import STORE, Store
from edgepress.stages.artifact import Artifact, Record
from edgepress.stages.contract import InputContract, Preprocessing
from edgepress.stages.distill.teacher_settings import TeacherSettings, by_name, kind_of, listed
from edgepress.stages.models import weights_fingerprint
from edgepress.stages.progress import Quiet
from edgepress.stages.tensors import save_state
from edgepress.targets.errors import RecipeError

BASE = "model: nets.py:big\nstudent: nets.py:small\ndata: data.py:pictures\n"
NETS = """
from torch import nn
def net(width, classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, classes))
def big(): return net(32)
def middle(): return net(16)
def small(): return net(8)
def wide(): return net(8, classes=5)
"""
DATA = """
import numpy as np
def pictures():
    labels = np.arange(120) % 3
    drawn = np.random.default_rng(0).integers(0, 150, (120, 4, 4, 3)) + 50 * labels[:, None, None, None]
    return {"train": (drawn.astype(np.uint8)[:60], labels[:60]), "test": (drawn.astype(np.uint8)[60:], labels[60:])}
"""


def settings_of(text: str, *options: tuple[str, str], folder: Path | None = None) -> Any:
    return recipe.load(BASE + text, origin="job.yaml", folder=folder, options=options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "data.py").write_text(DATA)
    return tmp_path


def opened(folder: Path, text: str) -> Start:
    made = plan.make(settings_of(text, folder=folder))
    return open_start(made, cache=folder / "cache", progress=Quiet())


def weights(folder: Path, name: str, *, width: int = 32) -> nn.Module:
    """A file of weights; returns the network they belong to."""
    torch.manual_seed(len(name))
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, 3))
    torch.save(module.state_dict(), folder / name)
    return module


@pytest.mark.parametrize(
    ("source", "kind"),
    [("ema", "word"), ("model", "word"), ("big.pt", "weights"), ("runs/a.safetensors", "weights"),
     ("nets.py:big", "network"), ("torchvision:resnet18", "network"), ("runs/assistant", "run"), ("emma", "run")],
)  # fmt: skip
def test_a_source_tells_what_it_is(source: str, kind: str) -> None:
    assert kind_of(source) == kind


def test_teachers_get_names_of_their_own() -> None:
    sources = ["a/big.pt", "b/big.pt", "nets.py:big", "ema", "runs/it.2"]
    many = tuple(TeacherSettings(**one) for one in listed(sources))
    assert list(by_name(many)) == ["big", "big-2", "big-3", "ema", "it"]
    assert list(by_name((TeacherSettings(source="ema", name="the mean/one"),))) == ["the-mean-one"]


def test_one_teacher_or_several_for_the_recipe_or_for_one_stage() -> None:
    found = settings_of("teacher: [big.pt, ema]\ndistill: {teacher: nets.py:middle}\nquantize: {teacher: float}\n")
    assert [one.source for one in found.teacher] == ["big.pt", "ema"]
    assert [one.source for one in found.distill.teacher] == ["nets.py:middle"]
    assert [one.source for one in found.quantize.teacher] == ["float"]


def test_paths_of_teachers_start_from_the_recipes_folder() -> None:
    text = "teacher: [big.pt, ema, {source: nets.py:middle, weights: m.pt}, runs/a, torchvision:resnet18]\n"
    found = settings_of(text + "distill: {teacher: w/x.pt}\n", folder=Path("jobs"))
    assert [one.source for one in found.teacher] == [
        "jobs/big.pt", "ema", "jobs/nets.py:middle", "jobs/runs/a", "torchvision:resnet18",
    ]  # fmt: skip
    assert found.teacher[2].weights == "jobs/m.pt"
    assert found.distill.teacher[0].source == "jobs/w/x.pt"


def test_options_name_teachers_too() -> None:
    found = settings_of(
        "", ("teacher", "nets.py:middle"), ("teacher.weights", "m.pt"), ("distill.teacher", "[a.pt, ema]")
    )
    assert (found.teacher[0].source, found.teacher[0].weights) == ("nets.py:middle", "m.pt")
    assert [one.source for one in found.distill.teacher] == ["a.pt", "ema"]
    assert settings_of("distill: {cache: off}\n").distill.cache == "off"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teacher: {source: ema, weights: a.pt}\n", "takes neither weights nor arguments"),
        ("teacher: {source: big.pt, arguments: {a: 1}}\n", "a file of weights, which takes neither"),
        ("teacher: {arguments: {a: 1}}\n", "name a source to build another network"),
        ("teacher: [a.pt, {sorce: b}]\n", "did you mean 'source'"),
        ("distill: {teacher: 3}\n", "not 3"),
        ("teacher: []\n", "at least 1 item"),
        ("distill: {weigh: confident}\n", "did you mean 'confidence'"),
        ("distill: {cache: -1}\n", "a number of gigabytes above 0 (seen: -1)"),
        ("distill: {views: 0}\n", "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        settings_of(text)
    assert words in str(caught.value)
    assert str(caught.value).startswith("job.yaml:4: ")


def test_a_stage_gets_its_own_teachers_and_the_others_the_recipes(folder: Path) -> None:
    mine = weights(folder, "other.pt")
    start = opened(folder, "teacher: other.pt\nprune: {teacher: [nets.py:middle, ema]}\nquantize: {epochs: 1}\n")
    taught = start.teachers["distill"]["other"]
    assert isinstance(taught, nn.Module)
    assert weights_fingerprint(taught) == weights_fingerprint(mine)
    assert set(start.teachers["prune"]) == {"middle", "ema"}
    assert start.teachers["prune"]["ema"] == "ema"
    assert start.teachers["quantize"] == {}  # its teacher is its float twin, whoever taught before


def test_a_stage_is_done_again_when_its_teacher_changed(folder: Path) -> None:
    def key(text: str) -> str:
        start = opened(folder, text)
        entry = next(entry for entry in start.plan.stages if entry.name == "distill")
        return start.key(entry, start.original)

    weights(folder, "other.pt")
    first = key("distill: {teacher: other.pt}\n")
    assert key("distill: {teacher: other.pt}\n") == first
    weights(folder, "another.pt")
    (folder / "another.pt").replace(folder / "other.pt")
    assert key("distill: {teacher: other.pt}\n") != first
    assert key("distill: {teacher: ema}\n") != key("distill: {teacher: snapshot}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teacher: emma\n", "did you mean 'ema'"),
        ("teacher: missing.pt\n", "teacher missing: weights: there is no file"),
        ("teacher: {source: nets.py:middel}\n", "did you mean 'middle'"),
        ("teacher: {source: nets.py:middle, weights: small.pt}\n", "teacher small: weights: .*does not fit"),
    ],
)
def test_a_teacher_that_cannot_be_opened_is_named(folder: Path, text: str, words: str) -> None:
    weights(folder, "small.pt", width=8)
    with pytest.raises(RecipeError, match=words):
        opened(folder, text)


def test_a_teacher_may_tell_other_classes_apart_until_a_loss_compares_them(folder: Path) -> None:
    assert isinstance(opened(folder, "teacher: nets.py:wide\n").teachers["distill"]["wide"], nn.Module)


def earlier_run(folder: Path, *made: tuple[str, str, int, float], name: str = "before") -> dict[str, nn.Module]:
    """A run's folder with finished stages: (stage, base, width, validation accuracy); returns their networks."""
    out = folder / "runs" / name
    told = settings_of("", folder=folder).model_dump(mode="json")
    out.mkdir(parents=True)
    (out / "report.json").write_text(json.dumps({"run": {"recipe": told}, "data": {"classes": ["a", "b", "c"]}}))
    pixels = Preprocessing(size=(4, 4), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    contract = InputContract(shape=(3, 4, 4), dynamic_batch=False, preprocessing=pixels, classes=("a", "b", "c"))
    found: dict[str, nn.Module] = {}
    store = Store(out / STORE)
    for place, (stage, base, width, figure) in enumerate(made):
        torch.manual_seed(place)
        module = nn.Sequential(nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, 3))
        record = Record(stage=stage, settings={}, seconds=1.0, metrics={"validation_accuracy": figure})
        store.save(stage, Artifact(module=module, contract=contract, base=base, key=f"{place:016d}", records=(record,)))
        found[stage] = module
    return found


def taught_by_run(folder: Path) -> nn.Module:
    taught = opened(folder, "teacher: runs/before\n").teachers["distill"]["before"]
    assert isinstance(taught, nn.Module)
    return taught


def test_an_earlier_run_lends_the_best_of_the_students_that_it_made(folder: Path) -> None:
    made = earlier_run(
        folder, ("train", "model", 32, 99.0), ("distill", "student", 8, 90.0), ("prune", "student", 6, 85.0)
    )
    assert weights_fingerprint(taught_by_run(folder)) == weights_fingerprint(made["distill"])


def test_an_earlier_run_without_a_student_lends_the_best_network_that_it_made(folder: Path) -> None:
    made = earlier_run(folder, ("train", "model", 32, 90.0), ("prune", "model", 20, 95.0))
    taught = taught_by_run(folder)
    assert weights_fingerprint(taught) == weights_fingerprint(made["prune"])
    assert sum(parameter.numel() for parameter in taught.parameters()) == 49 * 20 + 21 * 3


def test_a_damaged_network_of_an_earlier_run_is_passed_over(folder: Path) -> None:
    made = earlier_run(folder, ("train", "model", 32, 99.0), ("prune", "model", 20, 95.0))
    (stored,) = (folder / "runs" / "before" / STORE).glob("train-*/weights.safetensors")
    save_state({"something": torch.zeros(1)}, stored)
    assert weights_fingerprint(taught_by_run(folder)) == weights_fingerprint(made["prune"])


def test_a_folder_without_a_finished_run_is_refused(folder: Path) -> None:
    (folder / "runs" / "before").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"teacher before: .* has no report.json"):
        taught_by_run(folder)


def test_a_run_that_trained_nothing_has_nobody_to_lend(folder: Path) -> None:
    earlier_run(folder)
    with pytest.raises(RecipeError, match="trained no network and its model came without weights"):
        taught_by_run(folder)


def test_a_student_that_only_its_own_original_would_teach_is_not_distilled() -> None:
    told = "model: nets.py:big\ndata: data.py:pictures\ndistill: {teacher: model}\n"
    planned = {entry.name: entry.skip for entry in plan.make(recipe.load(told, origin="job.yaml")).stages}
    assert "the student is the model itself" in str(planned["distill"])
    planned = {
        entry.name: entry.skip
        for entry in plan.make(recipe.load(told.replace("teacher: model", "teacher: ema"), origin="job.yaml")).stages
    }
    assert planned["distill"] is None


@pytest.mark.slow
def test_a_chain_of_runs_ends_with_a_student_of_the_assistant(folder: Path) -> None:
    quick = {
        "profile.seconds": 1,
        "profile.memory": False,
        "profile.all_cores": False,
        "prune": "off",
        "quantize": "off",
    }
    job = {"data": "data.py:pictures", "train": {"epochs": 4}, "distill": {"epochs": 3}}
    assistant = {**job, "model": "nets.py:big", "student": "nets.py:middle"}
    student = {**job, "model": "nets.py:small", "student": "nets.py:small", "teacher": ["runs/assistant", "ema"]}
    for name, told in (("assistant", assistant), ("student", student)):
        (folder / f"{name}.yaml").write_text(json.dumps(told))
        out = folder / "runs" / name
        done = compress(folder / f"{name}.yaml", settings=quick, out=out, target="onnxruntime-cpu", quiet=True)
    (stage,) = [stage for stage in done.report.stages if stage.name == "distill"]
    assert stage.metrics["teacher_assistant"] > stage.metrics["student_before"]
    assert {"ce", "kd", "validation"} <= {series.partition("@")[0] for series in stage.curves}
    assert (folder / "runs" / "student" / "cache" / "teachers").is_dir()
