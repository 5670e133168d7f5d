"""A budget drives the pruning: what the plan says, what a run does, and what the report tells."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import net, stripes
from noise import code_within_budget
from report_sample import sample_report
from torch import nn

import edgepress
from edgepress.pipeline import cli, recipe
from edgepress.pipeline.choose import conclude
from edgepress.pipeline.plan import Plan, make
from edgepress.pipeline.report import shaping
from edgepress.pipeline.report.html import html
from edgepress.pipeline.report.markdown import markdown
from edgepress.targets import profiles
from edgepress.targets.errors import RecipeError

MODEL = (("model", "builtin:digits-teacher"), ("data", "builtin:digits"), ("target", "onnxruntime-cpu"))


def planned(*options: tuple[str, str]) -> Plan:
    return make(recipe.load(None, origin="test", options=[*MODEL, *options]))


def ratio_of(plan: Plan) -> float | None:
    return next(entry.settings["ratio"] for entry in plan.stages if entry.name == "prune")


@pytest.mark.parametrize(
    ("options", "goals"),
    [
        ([("budget.speedup", "2")], {"speedup": 2}),
        ([("budget.latency_ms", "4"), ("budget.accuracy_drop", "1")], {"latency_ms": 4}),
        ([("budget.size_mb", "0.5"), ("budget.memory_mb", "40")], {"size_mb": 0.5, "memory_mb": 40}),
        ([("budget.accuracy_drop", "0.5")], {}),
        ([("budget.accuracy_drop", "0.5"), ("prune.until", "accuracy_drop")], {"accuracy_drop": 0.5}),
        ([("budget", "{speedup: 2, accuracy_drop: 1}"), ("prune.until", "accuracy_drop")], {"accuracy_drop": 1}),
        ([], {}),
        ([("budget.speedup", "2"), ("prune.ratio", "0.4")], {}),
        ([("budget.accuracy", "90")], {}),
    ],
)
def test_pruning_works_towards_limits_where_no_ratio_is_named(
    options: list[tuple[str, str]], goals: dict[str, float]
) -> None:
    plan = planned(*options)
    assert plan.goals == goals
    assert (ratio_of(plan) is None) == bool(goals)
    assert bool(plan.pruning()) == bool(goals)


def test_a_drop_of_accuracy_is_a_limit_and_no_search_unless_one_is_asked_for() -> None:
    limit = profiles.load("onnxruntime-cpu").budget.accuracy_drop
    assert limit is not None
    assert ratio_of(planned()) == ratio_of(planned(("budget.accuracy_drop", "0.5"))) == 0.3
    asked = planned(("prune.until", "accuracy_drop"))
    assert asked.goals == {"accuracy_drop": limit}
    assert "as far as accuracy_drop 1 allows on validation images" in str(asked.pruning())


def test_going_as_far_as_a_limit_allows_needs_that_limit_and_nothing_else() -> None:
    with pytest.raises(RecipeError, match="--budget accuracy_drop=0.5"):
        planned(("prune.until", "accuracy_drop"), ("budget.speedup", "2"))
    with pytest.raises(RecipeError, match="finds the ratio itself"):
        planned(("prune.until", "accuracy_drop"), ("prune.ratio", "0.5"))


def test_steps_without_a_limit_are_refused_with_the_way_out() -> None:
    with pytest.raises(RecipeError, match="--budget speedup=2"):
        planned(("prune.steps", "3"))
    with pytest.raises(RecipeError, match="leave ratio out"):
        planned(("prune.steps", "3"), ("prune.ratio", "0.3"))


def test_a_dry_run_says_how_far_and_in_which_form(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "builtin:digits-teacher", "--data", "builtin:digits", "--budget", "speedup=2", "--dry-run"]
    assert cli.main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["pruning"]
    assert "until speedup 2 as measured with openvino" in said
    assert "INT8" in said
    assert cli.main([*words, "--target", "jetson-nano"]) == 0
    assert "counted in multiply-accumulates" in capsys.readouterr().out


FOUND: dict[str, Any] = {
    "goals": {"speedup": 2.0}, "measured_with": {"device": "a CPU", "runtime": "onnxruntime", "version": "1"},
    "time_is": "measured", "form": "fp32", "forms": {"fp32": 1.0}, "groups": {"conv1": 32, "layer1.0": 1},
    "not_pruned": {"head": "head: its outputs are the <answers>"}, "met": True,
    "reached": [{"goal": "speedup", "value": 2.03, "share": 0.49, "most": 0.5, "limit": 0.5, "met": True}],
    "widths": {"conv1": 16, "layer1.0": 0}, "importance_kept": 0.8, "front": [[1.0, 1.0], [0.9, 0.7], [0.8, 0.5]],
    "why_not_met": None, "drift": "the device became slower", "trials": [
        {"widths": {"conv1": 24, "layer1.0": 0}, "importance_kept": 0.9, "predicted": 0.5, "met": False, "reached": [],
         "seen": {"share": 0.6, "low": 0.59, "high": 0.61, "size_bytes": 2048}},
        {"widths": {"conv1": 16, "layer1.0": 0}, "importance_kept": 0.8, "predicted": 0.5, "met": True, "reached": [],
         "seen": {"share": 0.49, "low": 0.48, "high": 0.5, "size_bytes": 1024}},
    ],
}  # fmt: skip


def reported(found: dict[str, Any]) -> Any:
    report = sample_report()
    stages = [
        stage.model_copy(update={"metrics": {**stage.metrics, shaping.KEY: found}}) if stage.name == "prune" else stage
        for stage in report.stages
    ]
    return report.model_copy(update={"stages": stages})


def test_the_report_shows_every_candidate_and_the_front() -> None:
    report = reported(FOUND)
    page, text = html(report), markdown(report)
    for shown in (page, text):
        assert "Pruning to the budget" in shown
        assert "49.0 %" in shown
        assert "2 candidates came to speedup 2.03" in shown
    assert 'id="shaping"' in page
    assert "&lt;answers&gt;" in page
    assert "Importance kept against time" in page
    assert "Pruning to the budget" not in html(sample_report())


def test_trials_that_were_judged_by_accuracy_have_no_time() -> None:
    trial = {"predicted": 0.5, "drop": 0.4, "met": True, "widths": {"conv1": 16, "layer1.0": 0}, "importance_kept": 0.8}
    found = {**FOUND, "trials": [trial], "front": []}
    (line,) = shaping.shown(found)
    assert "not timed" in line
    assert line[-1] == "chosen, met, drop 0.40"
    assert "Pruning to the budget" in html(reported(found))


def test_the_verdict_says_what_pruning_could_not_do() -> None:
    counted = shaping.for_verdict({**FOUND, "measured_with": None})
    assert counted is not None
    assert "multiply-accumulates" in counted
    missed = shaping.for_verdict({**FOUND, "met": False})
    report = sample_report()
    profile = profiles.load("onnxruntime-cpu")
    verdict = conclude(report.variants[-1], report.variants[0], {}, profile, pruning=missed)
    assert "the nearest that pruning found came to speedup 2.03" in verdict.sentence
    assert shaping.for_verdict(FOUND) is None


def compressed(folder: Path, module: nn.Module | None = None, **budget: float) -> edgepress.Result:
    images, labels = stripes(300, seed=6)
    return edgepress.compress(
        model=module or copy.deepcopy(net(width=64)),
        data={"train": (images[:200], labels[:200]), "test": (images[200:], labels[200:])},
        target="onnxruntime-cpu", budget={**budget, "accuracy_drop": 100}, out=folder, quiet=True,
        settings={
            "stages": ["prune", "export", "profile"], "prune.epochs": 1, "data.mean": [0.3], "data.std": [0.25],
            "profile.seconds": 1, "profile.all_cores": False, "profile.memory": False, "profile.layers": False,
        },
    )  # fmt: skip


@pytest.mark.slow
def test_a_network_is_pruned_to_a_measured_speed_up_in_onnx_runtime(tmp_path: Path) -> None:
    result = compressed(tmp_path / "out", speedup=1.3)
    found = shaping.found_in(result.report)
    assert found is not None
    assert found["trials"]
    assert found["measured_with"]["runtime"] == "onnxruntime"
    variants = {variant.name: variant for variant in result.report.variants}
    assert variants["pruned"].macs is not None
    assert variants["baseline"].macs is not None
    assert variants["pruned"].macs < variants["baseline"].macs
    met = [trial for trial in found["trials"] if trial["met"]]
    assert found["met"] == bool(met)
    if met:
        assert found["importance_kept"] == max(trial["importance_kept"] for trial in met)
    tables = list((tmp_path / "out" / "cache" / "tables").glob("onnxruntime-fp32-*.json"))
    assert len(tables) == 1
    again = compressed(tmp_path / "out", speedup=1.3)
    reused = {stage.name for stage in again.report.stages if stage.reused}
    assert {"prune", "export"} <= reused


@pytest.mark.slow
def test_a_budget_out_of_reach_is_an_exit_code_and_a_sentence(tmp_path: Path) -> None:
    result = compressed(tmp_path / "out", speedup=1000)
    assert result.exit_code == 4
    assert any("Relax the limit" in caveat for caveat in result.report.caveats)


@pytest.mark.slow
def test_a_budget_that_is_met_already_prunes_nothing(tmp_path: Path) -> None:
    result = compressed(tmp_path / "out", latency_ms=1e6)
    assert result.exit_code == code_within_budget(result.report)
    skipped = {stage.name: stage.skipped for stage in result.report.stages}
    assert "meets the budget already" in str(skipped["prune"])
    assert [variant.name for variant in result.report.variants] == ["baseline"]


@pytest.mark.slow
def test_a_network_that_cannot_be_pruned_goes_on_as_it_is_and_misses_the_budget(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = compressed(tmp_path / "out", nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), speedup=1000)
    assert result.exit_code == 4
    skipped = {stage.name: stage.skipped for stage in result.report.stages}
    assert "no channel can be removed" in str(skipped["prune"])
    assert [variant.name for variant in result.report.variants] == ["baseline"]
