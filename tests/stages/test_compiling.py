"""torch.compile, where it works and where it does not."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from nets import context, net
from test_training import lesson

from edgepress.stages.artifact import Context
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


def test_a_student_whose_modules_are_tapped_is_not_compiled(tmp_path: Path) -> None:
    surroundings = context(tmp_path)
    notes = noted(surroundings)
    teach(
        net(), lesson(compile=True, epochs=1, loss={"ce": 1, "pkt": {"weight": 1.0}}), surroundings, teacher=net(seed=1)
    )  # fmt: skip
    assert len(notes) == 1
    assert notes[0].startswith("not compiled: losses tap modules of the student (")


@pytest.mark.slow
def test_a_compiled_student_learns_the_same_and_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    real = functools.partial(torch.compile, backend="aot_eager")  # the whole way but for generated code
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or real(module))  # type: ignore[func-returns-value]
    student, other = net(), net()
    keys = list(student.state_dict())
    surroundings = context(tmp_path / "a")
    notes = noted(surroundings)
    settings = lesson(epochs=2, ce=0.5, kd=0.5)
    trained, _ = teach(student, lesson(epochs=2, ce=0.5, kd=0.5, compile=True), surroundings, teacher=net(seed=1))
    plain, _ = teach(other, settings, context(tmp_path / "b"), teacher=net(seed=1))
    assert not notes
    assert student in compiled
    assert list(student.state_dict()) == keys
    assert trained.curves["kd"] == pytest.approx(plain.curves["kd"], rel=1e-3)
