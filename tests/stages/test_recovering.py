"""What a pruned network learns from the one that it was cut from, and when that is less."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import artifact, context, net
from torch import nn

from edgepress.stages.artifact import Artifact, Record
from edgepress.stages.lesson import Lesson
from edgepress.stages.prune import Prune
from edgepress.stages.pruning import prune
from edgepress.stages.tasks import TASKS


def curves(settings: Prune, given: Artifact, folder: Path, **changes: Any) -> set[str]:
    notes: list[str] = []
    record = prune(settings, given, replace(context(folder), note=notes.append, **changes)).records[-1]
    assert any("at is left out" in note for note in notes) == (record.settings["at"] != settings.at)
    assert bool(record.settings["at"]) == ("at" in record.curves or settings.loss is not None)
    return {name for name in record.curves if name in ("ce", "kd", "at", "bce", "bkd", "hint")}


def settings(**changes: Any) -> Prune:
    return Prune(**{"ratio": 0.5, "importance": "magnitude", "epochs": 1, "batch_size": 64, "at": 1000, **changes})


def test_where_it_is_active_is_learned_beside_the_answers(tmp_path: Path) -> None:
    assert curves(settings(), artifact(), tmp_path) == {"ce", "kd", "at"}


@pytest.mark.parametrize(
    ("changes", "learned"),
    [({"at": 0}, {"ce", "kd"}), ({"loss": {"ce": {"weight": 1}}}, {"ce"}), ({"teacher": "model"}, {"ce", "kd"})],
)
def test_a_recipe_may_want_it_otherwise(tmp_path: Path, changes: dict[str, Any], learned: set[str]) -> None:
    assert curves(settings(**changes), artifact(), tmp_path) == learned


def test_another_network_than_the_one_that_was_pruned_teaches_by_its_answers(tmp_path: Path) -> None:
    original = artifact(net(seed=1))
    distilled = original.next(
        record=Record(stage="distill", settings={}, seconds=0.0, metrics={}), module=net(), base="student"
    )
    assert distilled.original is original
    assert curves(settings(), distilled, tmp_path) == {"ce", "kd"}


def test_a_network_without_maps_teaches_by_its_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vectors = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    assert curves(settings(), artifact(vectors.eval()), tmp_path) == {"ce", "kd"}


def test_other_tasks_keep_their_own_losses() -> None:
    lesson = TASKS["multilabel"].lesson(settings())
    assert set(lesson.losses()) == {"bce", "bkd", "at"}
    assert lesson.losses()["at"].weight == 1000
    plain = TASKS["regression"].lesson(settings(kd=0.5))
    assert plain.losses()["logits"].options == {}


def test_attention_fades_over_the_recovery() -> None:
    ramp = settings(epochs=8).losses()["at"].ramp
    assert [ramp.at(epoch) for epoch in (0, 4, 8)] == [1.0, 0.5, 0.0]


def test_nobody_has_it_who_did_not_ask() -> None:
    assert "at" not in Lesson(kd=0.9).losses()
    assert "at" not in Prune().losses()


def test_a_pruned_network_learns_the_places_of_its_original(tmp_path: Path) -> None:
    """With attention alone: the maps come nearer, as nothing else would bring them."""
    given = artifact()
    start = copy.deepcopy(given.module)
    after = prune(settings(ce=0, kd=0, epochs=6, lr=3e-3), given, context(tmp_path))
    told = after.records[-1].curves["at"]
    assert told[-1] < 0.5 * told[0]
    assert all(torch.equal(value, start.state_dict()[key]) for key, value in given.module.state_dict().items())
