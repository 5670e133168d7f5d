"""torch.compile, where it works and where it does not."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from nets import context, net
from test_training import lesson
from torch._dynamo.utils import counters

from edgepress.stages.artifact import Context
from edgepress.stages.distill.settings import Loss
from edgepress.stages.teaching import teach


def noted(surroundings: Context) -> list[str]:
    notes: list[str] = []
    object.__setattr__(surroundings, "note", notes.append)
    return notes


def test_where_torch_compile_fails_training_goes_on_without_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(module: torch.nn.Module) -> torch.nn.Module:
        raise RuntimeError("\nno C++ compiler found")

    monkeypatch.setattr(torch, "compile", fails)
    surroundings = context(tmp_path / "a")
    notes = noted(surroundings)
    trained, _ = teach(net(), lesson(compile=True, epochs=2), surroundings, teacher=None)
    plain, _ = teach(net(), lesson(epochs=2), context(tmp_path / "b"), teacher=None)
    assert notes == ["not compiled: torch.compile does not work here (RuntimeError: no C++ compiler found)"]
    assert trained.curves == plain.curves


@pytest.mark.slow
@pytest.mark.parametrize("loss", [{"ce": 0.5, "kd": 0.5}, {"ce": 0.5, "at": 100, "hint": 10}])
def test_a_compiled_student_learns_the_same_and_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: dict[str, float]
) -> None:
    used = []
    real = functools.partial(torch.compile, backend="aot_eager")  # the whole way but for generated code
    monkeypatch.setattr(torch, "compile", lambda passes: used.append(passes) or real(passes))  # type: ignore[func-returns-value]
    student, other = net(), net()
    keys = list(student.state_dict())
    surroundings = context(tmp_path / "a")
    notes = noted(surroundings)
    losses = {name: Loss(weight=weight) for name, weight in loss.items()}
    counters.clear()
    trained, _ = teach(student, lesson(epochs=2, loss=losses, compile=True), surroundings, teacher=net(seed=1))
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    plain, _ = teach(other, lesson(epochs=2, loss=losses), context(tmp_path / "b"), teacher=net(seed=1))
    assert not notes
    assert len(used) == 2
    assert breaks == 0
    assert graphs <= 4, "a trial and the training, each of a whole batch and of the last one"
    assert list(student.state_dict()) == keys
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in student.modules())
    for name in loss:
        assert trained.curves[name] == pytest.approx(plain.curves[name], rel=1e-3)
