"""`--track`: who is told the curves, and what is said where that cannot be."""

from __future__ import annotations

import importlib.util

import pytest

from edgepress.pipeline import cli, job
from edgepress.targets.errors import RuntimeMissingError


def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlflow" else real(name, *rest)
    )


def test_mlflow_that_is_asked_for_and_not_installed_is_said_before_any_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_mlflow(monkeypatch)
    code = cli.main(["--track", "mlflow", "--out", "nowhere"])
    assert code == 3
    assert "pip install 'edgepress[mlflow]'" in capsys.readouterr().err


def test_a_server_in_the_environment_asks_for_mlflow_and_stops_nothing_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_mlflow(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert job.told_to_mlflow(None)
    with pytest.raises(RuntimeMissingError):
        job.told_to_mlflow("mlflow")


def test_nobody_else_can_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--track", "somebody"])
    assert caught.value.code == 2
    assert "mlflow" in capsys.readouterr().err


def test_a_plain_run_tells_tensorboard_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert job.told_to_mlflow(None) is False
