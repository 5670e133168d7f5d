"""Who learns from whom while a network is trained in integers, with labels, without them, and without data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import artifact, context, data, net
from pydantic import ValidationError
from torch import nn
from without_data import context as made_context
from without_data import hurry, opened, settings
from without_data import net as made_net

from edgepress.stages.artifact import Artifact
from edgepress.stages.quantization import training
from edgepress.stages.quantization.qat import quantize
from edgepress.stages.quantization.training import phase_epochs
from edgepress.stages.quantize import Quantize
from edgepress.targets.errors import StageError

Part = dict[str, Any]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """What each part of a training was given, and what it changed."""
    seen: list[Part] = []
    real: Callable[..., Any] = training.teach

    def noted(student: nn.Module, lesson: Any, where: Any, **given: Any) -> Any:
        peers = [{name: value.clone() for name, value in peer.state_dict().items()} for peer in given["peers"]]
        before = {name: value.clone() for name, value in student.state_dict().items()}
        found = real(student, lesson, where, **given)
        seen.append(
            {
                "lesson": lesson, "where": where, **given,
                "learned": any(not torch.equal(one, before[name]) for name, one in student.state_dict().items()),
                "tutor_learned": any(
                    not torch.equal(one, then[name])
                    for peer, then in zip(given["peers"], peers, strict=True)
                    for name, one in peer.state_dict().items()
                ),
            }
        )  # fmt: skip
        return found

    monkeypatch.setattr(training, "teach", noted)
    return seen


def in_phases(start: Artifact, where: Any, **changes: Any) -> Artifact:
    return quantize(Quantize(epochs=4, batch_size=32, phases="qkd", lr=1e-3, **changes), start, where)


def losses(part: Part) -> dict[str, float]:
    return {name: loss.weight for name, loss in part["lesson"].losses().items()}


def test_by_default_the_float_twins_answers_are_all_that_counts(tmp_path: Path, parts: list[Part]) -> None:
    """SQAKD: labels may be anything."""
    start, made = artifact(), []
    for number, shuffle in enumerate((False, True)):
        there = data()
        assert there.train is not None
        if shuffle:
            wrong = (there.train.labels() + 1) % 4
            there = replace(there, train=type(there.train)(there.train.pixels, wrong, there.train.rows))
        where = replace(context(tmp_path / str(number)), data=there)
        made.append(quantize(Quantize(epochs=1, batch_size=32), start, where).module.state_dict())
    assert losses(parts[0]) == {"kd": 1.0}
    assert parts[0]["lesson"].temperature == 1.0
    assert parts[0]["teacher"] is start.module
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_with_labels_the_phases_are_those_of_the_paper(tmp_path: Path, parts: list[Part]) -> None:
    start = artifact()
    before = {name: value.clone() for name, value in start.module.state_dict().items()}
    after = in_phases(start, context(tmp_path), ce=0.5, temperature=2)
    alone, together, tutored = parts
    assert [part["lesson"].epochs for part in parts] == [1, 1, 2]
    assert losses(alone) == {"ce": 0.5}
    assert alone["teacher"] is None
    assert losses(together) == losses(tutored) == {"ce": 0.5, "kd": 1.0}
    assert together["teacher"] is None
    assert together["tutor_learned"]
    assert tutored["teacher"] is together["peers"][0]
    assert not tutored["peers"]
    assert all(torch.equal(value, before[name]) for name, value in start.module.state_dict().items())
    record = after.records[-1]
    assert len(record.curves["validation"]) == 4
    assert record.metrics["best_epoch"] <= 4
    assert {f"validation_after_{name}" for name in ("self_studying", "co_studying", "tutoring")} <= set(record.metrics)


def test_without_labels_the_untouched_twin_stands_for_them(tmp_path: Path, parts: list[Part]) -> None:
    start = artifact()
    in_phases(start, context(tmp_path))
    alone, together, tutored = parts
    assert losses(alone) == {"hard": 1.0}
    assert alone["teacher"] is together["teacher"] is start.module
    assert losses(together) == losses(tutored) == {"kd": 1.0}
    assert together["tutor_learned"]
    assert tutored["teacher"] is together["peers"][0] is not start.module


def test_a_network_with_another_form_can_be_the_tutor_and_is_never_kept(tmp_path: Path, parts: list[Part]) -> None:
    big = net(seed=3, width=24)
    where = replace(context(tmp_path), teachers={"big": big})
    after = in_phases(artifact(), where)
    assert parts[0]["teacher"] is big
    assert parts[1]["peers"][0].stem.out_channels == 24
    assert after.module.get_submodule("stem").layer.out_channels == 16  # type: ignore[union-attr]


def test_a_training_that_was_stopped_between_phases_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_phases(artifact(), context(tmp_path / "whole"))
    real, calls = training.teach, []

    def stops(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given, **named)

    with monkeypatch.context() as once:
        once.setattr(training, "teach", stops)
        with pytest.raises(KeyboardInterrupt):
            in_phases(artifact(), context(tmp_path / "stopped"))
    again = in_phases(artifact(), context(tmp_path / "stopped"))
    for name, value in whole.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value), name
    assert again.records[-1].curves["validation"] == whole.records[-1].curves["validation"]


def test_two_tutors_or_a_word_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="one tutor, a network of its own, and here are a, b"):
        in_phases(artifact(), replace(context(tmp_path), teachers={"a": net(), "b": net()}))
    with pytest.raises(StageError, match="here are ema"):
        in_phases(artifact(), replace(context(tmp_path), teachers={"ema": "ema"}))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"phases": "qkd"}, "three phases of an epoch at least, and epochs is 2"),
        ({"phases": "qkd", "epochs": 3, "kd": 0, "ce": 1}, "give kd a weight"),
        ({"phases": "qkd", "epochs": 3, "loss": {"kd": 1}}, "leave out loss"),
        ({"trains": "ranges"}, "set ranges to learned"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Quantize(**wrong)


@pytest.mark.parametrize("epochs", range(3, 30))
def test_every_epoch_belongs_to_a_phase(epochs: int) -> None:
    shares = phase_epochs(epochs)
    assert sum(shares) == epochs
    assert min(shares) >= 1
    assert shares[2] >= shares[0]


@pytest.mark.parametrize(
    "how", [{}, {"phases": "qkd"}, {"ranges": "learned"}, {"ranges": "learned", "trains": "ranges"}]
)
def test_each_way_works_on_images_that_were_made(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[Part]
) -> None:
    hurry(monkeypatch)
    module = made_net(seed=0, norms=True)
    means = [part.running_mean.clone() for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    there = opened(settings(method="fastdfkd"), module, tmp_path / "cache")
    start = artifact(module)
    start = replace(start, contract=replace(start.contract, classes=there.classes, preprocessing=there.preprocessing))
    notes: list[str] = []
    where = made_context(there, tmp_path / "work", note=notes.append)
    after = quantize(Quantize(epochs=4, batch_size=16, calibration=32, ce=0.5, **how), start, where)
    assert after.form == "quantized"
    assert any(part["learned"] for part in parts)
    assert sum("ce is left out" in note for note in notes) == 1
    assert all("ce" not in part["lesson"].losses() or "phases" not in how for part in parts)
    found = [part.running_mean for part in after.module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, means, strict=True))
    for part in parts:
        for peer in part["peers"]:
            tutors = [one.running_mean for one in peer.modules() if isinstance(one, nn.BatchNorm2d)]
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(tutors, means, strict=True))
