"""`compress search`: settings that are judged on validation images, against a plain training with as many trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import command
import pytest
import yaml

from edgepress.pipeline import cli, recipe, search, space
from edgepress.pipeline.plan import PlannedStage, make
from edgepress.pipeline.search import Found
from edgepress.stages.distill.stage import Distill
from edgepress.stages.prune import Prune
from edgepress.targets.errors import RecipeError

NET = """
from torch import nn

def make(width=32):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""
RECIPE = """
model: net.py:make
student: {source: net.py:make, arguments: {width: 8}}
data: builtin:digits
train: {epochs: 4, lr: 0.01}
distill: {epochs: 3, lr: 0.005, clip_norm: null}
prune: off
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "net.py").write_text(NET)
    (tmp_path / "job" / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def stage(**settings: Any) -> PlannedStage:
    return PlannedStage(stage=Distill(**settings), skip=None)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    return command.run(capsys, "search", *words)


def test_by_default_the_rate_the_teachers_weight_and_the_temperature_are_searched() -> None:
    axes = {axis.key: axis for axis in space.usual(stage(lr=1e-3))}
    assert set(axes) == {"distill.lr", "distill.kd", "distill.temperature"}
    assert axes["distill.lr"].logarithmic
    assert axes["distill.lr"].holds(1e-3)
    assert axes["distill.kd"].low == pytest.approx(0.09)


def test_by_default_every_loss_beside_the_tasks_own_is_weighed() -> None:
    axes = {axis.key: axis for axis in space.usual(stage(loss={"ce": 1, "at": 1000, "dkd": {"weight": 2, "beta": 4}}))}
    assert set(axes) == {
        "distill.lr", "distill.loss.at.weight", "distill.loss.dkd.weight", "distill.loss.dkd.temperature",
    }  # fmt: skip
    assert (axes["distill.loss.at.weight"].low, axes["distill.loss.at.weight"].high) == (100.0, 10_000.0)


def test_in_pruning_attention_is_weighed_too_and_plain_training_has_none() -> None:
    planned = PlannedStage(stage=Prune(ratio=0.5, at=1000), skip=None)
    axes = space.usual(planned)
    assert [axis.key for axis in axes] == ["prune.lr", "prune.kd", "prune.temperature", "prune.at"]
    kept, fixed = search._baseline(planned, axes)["labels alone"]
    assert [axis.key for axis in kept] == ["prune.lr"]
    plain = Prune(ratio=0.5, **{key.split(".")[1]: yaml.safe_load(value) for key, value in fixed.items()})
    assert plain.losses().keys() == {"ce"}


def test_a_range_is_logarithmic_where_it_spans_a_decade_and_whole_where_the_setting_is() -> None:
    words = ["distill.kd=0:1", "distill.lr=1e-4:1e-2", "distill.epochs=2:9", "distill.optimizer=adamw,sgd"]
    kd, lr, epochs, optimizer = space.parse(words, stage())
    assert (kd.logarithmic, lr.logarithmic) == (False, True)
    assert (kd.whole, epochs.whole) == (False, True)
    assert optimizer.choices == ("adamw", "sgd")
    (at,) = space.parse(["distill.loss.at=1:10"], stage(loss={"at": 1000}))
    assert at.key == "distill.loss.at.weight"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("distill.kd", "write it as distill.KEY=LOW:HIGH"),
        ("prune.ratio=0:1", "settings of one stage"),
        ("distill.kd=2:1", "2 is not below 1"),
        ("distill.kd=0.5", "neither LOW:HIGH"),
        ("distill.optimizer=sgd,", "neither LOW:HIGH"),
    ],
)
def test_a_range_that_is_none_is_refused(word: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        space.parse(["distill.lr=1e-4:1e-2", word], stage())


def test_an_option_of_a_loss_that_is_written_as_its_weight_keeps_that_weight() -> None:
    words = space.options(stage(loss={"ce": 1, "dkd": 3}), {"distill.loss.dkd.beta": 2.0})
    assert words == ["distill.loss.dkd.weight=3.0", "distill.loss.dkd.beta=2.0"]
    text = "model: a.py:b\ndata: builtin:digits\ndistill: {loss: {ce: 1, dkd: 3}}\n"
    pairs = [tuple(word.split("=")) for word in words]
    found = recipe.load(text, origin="test", options=pairs).section("distill").losses()["dkd"]  # type: ignore[arg-type]
    assert (found.weight, found.options) == (3.0, {"beta": 2.0})


def test_plain_training_searches_what_concerns_it_of_the_same_space() -> None:
    axes = space.parse(["distill.kd=0.1:1", "distill.weight_decay=1e-5:1e-3"], stage())
    kept, fixed = search._baseline(stage(), axes)["labels alone"]
    assert [axis.key for axis in kept] == ["distill.weight_decay", "distill.lr"]
    assert Distill(**{key.split(".")[1]: yaml.safe_load(value) for key, value in fixed.items()}).losses().keys() == {
        "ce"
    }
    assert not search._baseline(PlannedStage(stage=make_train(), skip=None), axes)


def make_train() -> Any:
    from edgepress.stages.train import Train

    return Train()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--over", "distill.kdd=0:1"], "did you mean 'kd'"),
        (["--over", "distill.lr=0.1:99"], "less than or equal to 10"),
        (["--over", "profile.seconds=1:2"], "has no stage profile that trains"),
        (["--set", "distill.epochs=0"], "epochs is 0"),
        (["--trials", "0"], "--trials 0"),
        (["--timeout", "soon"], "no duration"),
        (["--set", "distill.loss={ce: 1, nothing: 1}"], "no loss is called 'nothing'"),
    ],
)
def test_a_wrong_word_is_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, _, said = run(capsys, "job/recipe.yaml", "--out", "out", *words)
    assert code == 2
    assert message in said
    assert not (folder / "out").exists()


def test_without_optuna_the_command_says_what_to_install(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, said = run(capsys, "job/recipe.yaml")
    assert code == 3
    assert "edgepress[search]" in said


def test_several_processes_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, said = run(capsys, "job/recipe.yaml")
    assert code == 2
    assert "without torchrun" in said


def test_the_verdict_says_which_is_better_and_how_little_that_means() -> None:
    better = {
        "recipe": Found(name="recipe", best={}, value=91.5, trials=[]),
        "labels alone": Found(name="labels alone", best={}, value=91.0, trials=[]),
    }
    assert "beats labels alone" in search._verdict(better, images=200)
    assert "(+0.50)" in search._verdict(better, images=200)
    worse = {**better, "recipe": Found(name="recipe", best={}, value=90.0, trials=[])}
    assert "does not beat" in search._verdict(worse, images=200)


@pytest.mark.slow
def test_a_search_finds_settings_writes_a_recipe_that_runs_and_goes_on_where_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    words = [
        "job/recipe.yaml",
        "--out",
        "out",
        "--over",
        "distill.lr=1e-4:0.1",
        "--over",
        "distill.kd=0.1:10",
        "--json",
    ]
    code, out, _ = run(capsys, *words, "--trials", "2")
    first = json.loads(out)
    assert code == 0
    assert [trial["number"] for trial in first["recipe"]["trials"]] == [0, 1]
    assert first["recipe"]["trials"][0]["settings"] == {"distill.lr": 0.005, "distill.kd": 0.9}  # as the recipe has it
    assert set(first["labels alone"]["best"]) == {"distill.lr"}
    assert len(first["labels alone"]["trials"]) == 2
    assert first["recipe"]["value"] == max(trial["value"] for trial in first["recipe"]["trials"])

    code, out, _ = run(capsys, *words, "--trials", "6")
    second = json.loads(out)
    assert second["recipe"]["trials"][:2] == first["recipe"]["trials"]
    assert len(second["recipe"]["trials"]) == len(second["labels alone"]["trials"]) == 6
    assert second["recipe"]["value"] >= first["recipe"]["value"]
    assert not list((folder / "out" / "search").glob("trial-*"))

    best = folder / "out" / "best.yaml"
    plan = make(recipe.load(best.read_text(), origin=str(best), folder=best.parent))
    section = plan.recipe.section("distill")
    assert section.lr == second["recipe"]["best"]["distill.lr"]
    assert section.clip_norm is None
    assert cli.main([str(best), "--dry-run", "--json"]) == 0
    assert Path(plan.recipe.model.source.rpartition(":")[0]).is_file()


@pytest.mark.slow
def test_no_trial_looks_at_the_test_images_and_ctrl_c_loses_only_its_trial(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    import dataclasses

    from edgepress.pipeline import trials

    class Untouchable:
        shape = (1, 8, 8)

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"a search asked the test images for {name}")

    real, calls = trials.open_start, []

    def without_test(*words: Any, **named: Any) -> Any:
        start = real(*words, **named)
        return dataclasses.replace(start, data=dataclasses.replace(start.data, test=Untouchable()))

    monkeypatch.setattr(trials, "open_start", without_test)
    run_trial = trials.Trials.run

    def interrupted(self: trials.Trials, *words: Any, **named: Any) -> None:
        calls.append(named["title"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        run_trial(self, *words, **named)

    monkeypatch.setattr(trials.Trials, "run", interrupted)
    words = ["job/recipe.yaml", "--out", "out", "--trials", "2"]
    code, _, said = run(capsys, *words)
    assert code == 130
    assert "the same command goes on" in said
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert calls == ["recipe 1/2", "labels alone 1/2", "recipe 2/2", "recipe 2/2", "labels alone 2/2"]
    for words_shown in ("labels alone", "each with its best settings", "best.yaml", "distill:"):
        assert words_shown in " ".join(out.split())
