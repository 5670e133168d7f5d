"""A recipe, or the command, lets a student start from its teacher's weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_teacher_settings import DATA, NETS, settings_of, weights

from edgepress.pipeline import plan, recipe
from edgepress.pipeline.cli import main
from edgepress.pipeline.start import open_start
from edgepress.stages.progress import Quiet
from edgepress.targets.errors import RecipeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "data.py").write_text(DATA)
    return tmp_path


def test_the_command_says_it_as_the_recipe_does(folder: Path) -> None:
    by_option = settings_of("", ("student.initialise", "teacher"))
    assert by_option.student.initialise == "teacher"
    assert by_option.student.source == "nets.py:small"
    assert settings_of("").student.initialise is None


def test_two_starts_are_one_too_many() -> None:
    with pytest.raises(RecipeError, match="weights and initialise are two starts"):
        settings_of("", ("student.initialise", "teacher"), ("student.weights", "small.pt"))
    with pytest.raises(RecipeError, match="unknown key 'model.initialise'"):
        settings_of("", ("model.initialise", "teacher"))


def test_the_student_is_made_again_when_it_starts_otherwise(folder: Path) -> None:
    weights(folder, "big.pt")
    keys = set()
    for initialise in ("null", "teacher", "model"):
        made = plan.make(settings_of("teacher: big.pt\n", ("student.initialise", initialise), folder=folder))
        start = open_start(made, cache=folder / "cache", progress=Quiet())
        distill = next(entry for entry in start.plan.stages if entry.name == "distill")
        keys.add(start.key(distill, start.original))
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("student: {source: nets.py:small, initialise: techer}", "no teacher is called so. Name one of teacher, model"),
        (
            "student: {source: nets.py:big, initialise: teacher}\nmodel: nets.py:small",
            "1.weight is 32x48 in the student",
        ),
        ("student: {source: nets.py:small, initialise: teacher}\nteacher: [a.pt, b.pt]", "Name one of a, b, model"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(folder: Path, text: str, words: str) -> None:
    weights(folder, "a.pt")
    weights(folder, "b.pt")
    base = {"model": "nets.py:big", "data": "data.py:pictures"}
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    (folder / "job.yaml").write_text("".join(f"{key}: {value}\n" for key, value in {**base, **lines}.items()))
    made = plan.make(recipe.load((folder / "job.yaml").read_text(), origin="job.yaml", folder=folder))
    with pytest.raises(RecipeError, match=words):
        open_start(made, cache=folder / "cache", progress=Quiet())


@pytest.mark.slow
def test_a_run_starts_its_student_so_and_says_what_that_was_worth(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", f"{folder / 'nets.py'}:big", "--student", f"{folder / 'nets.py'}:small",
               "--student-initialise", "teacher", "--data", f"{folder / 'data.py'}:pictures",
               "--target", "onnxruntime-cpu", "--budget", "accuracy_drop=100",
               "--set", "stages=[train, distill, export, profile]", "--set", "train.epochs=8", "--set", "train.lr=0.01",
               "--set", "distill.epochs=1", "--set", "distill.lr=1e-9", "--set", "profile.seconds=0.2",
               "--set", "profile.memory=false", "--set", "profile.all_cores=false", "--set", "profile.layers=false",
               "--out", str(folder / "out"), "--quiet"]  # fmt: skip
    code = main(options)
    report = json.loads((folder / "out" / "report.json").read_text())
    assert code in (0, 3), capsys.readouterr().err
    inherited = next(stage for stage in report["stages"] if stage["name"] == "distill")["metrics"]["inherited"]
    assert inherited["channels"] == {"1": [8, 32]}
    assert inherited["validation_accuracy"] > 100 / 3
    assert report["run"]["recipe"]["student"]["initialise"] == "teacher"
