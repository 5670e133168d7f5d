"""Curves are told to TensorBoard and MLflow, and neither can stop a training."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nets import context, net
from test_training import lesson

from edgepress.stages import tracking
from edgepress.stages.teaching import teach
from edgepress.stages.tracking import MLflow, TensorBoard, flattened, tag, tracker_for, wants_mlflow


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: [(one.step, one.value) for one in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_every_figure_of_every_epoch_reaches_tensorboard(tmp_path: Path) -> None:
    surroundings, notes = context(tmp_path / "work"), []
    tracker = tracker_for("distill", {"lr": 1e-3}, out=tmp_path, key="k", mlflow=False, note=notes.append)
    object.__setattr__(surroundings, "tracker", tracker)
    trained, _ = teach(net(), lesson(epochs=3, ce=0.5, kd=0.5), surroundings, teacher=net(seed=1))
    tracker.close()
    found = scalars(tmp_path / "tensorboard" / "distill")
    assert set(found) == {"loss/ce", "loss/kd", "share/ce", "share/kd", "validation", "learning rate"}
    assert [step for step, _ in found["loss/kd"]] == [1, 2, 3]
    assert [value for _, value in found["loss/kd"]] == pytest.approx(trained.curves["kd"], rel=1e-5)
    assert not notes


def test_tensorboard_holds_the_hyperparameters(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    board = TensorBoard(
        tmp_path, flattened({"lr": 0.25, "loss": {"kd": {"weight": 2.0}}, "exclude": ("a",), "n": None})
    )
    board.note(1, {"ce": 1.0})
    board.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    started = plugin_data_pb2.HParamsPluginData.FromString(
        found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info
    assert started.hparams["lr"].number_value == 0.25
    assert started.hparams["loss.kd.weight"].number_value == 2.0
    assert started.hparams["exclude"].string_value == '["a"]'


def test_what_was_told_after_the_epoch_that_a_resumed_training_starts_from_is_dropped(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path, {})
    for epoch in (1, 2, 3):
        first.note(epoch, {"ce": float(epoch)})
    first.close()
    second = TensorBoard(tmp_path, {})
    for epoch in (3, 4):
        second.note(epoch, {"ce": epoch + 0.5})
    second.close()
    assert scalars(tmp_path)["loss/ce"] == [(1, 1.0), (2, 2.0), (3, 3.5), (4, 4.5)]


def test_a_loss_that_has_no_value_yet_leaves_a_gap(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, {})
    board.note(1, {"ce": 1.0, "kd": float("nan")})
    board.note(2, {"ce": 1.0, "kd": 0.5})
    board.close()
    assert scalars(tmp_path)["loss/kd"] == [(2, 0.5)]


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ("kd", "loss/kd"),
        ("share kd", "share/kd"),
        ("student share kd@big", "share/student kd@big"),
        ("peer 2 kd", "loss/peer 2 kd"),
        ("validation", "validation"),
        ("peer 2 validation", "validation/peer 2"),
        ("student learning rate", "learning rate/student"),
    ],
)
def test_series_are_grouped_by_what_they_are(series: str, expected: str) -> None:
    assert tag(series) == expected


def test_a_full_disk_is_noted_once_and_the_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: TensorBoard, epoch: int, figures: Mapping[str, float]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "note", full)
    notes: list[str] = []
    surroundings = context(tmp_path / "work")
    tracker = tracker_for("train", {}, out=tmp_path, key="k", mlflow=False, note=notes.append)
    object.__setattr__(surroundings, "tracker", tracker)
    trained, _ = teach(net(), lesson(epochs=3), surroundings, teacher=None)
    tracker.close()
    assert len(trained.curves["ce"]) == 3
    assert notes == ["TensorBoard is told no more: [Errno 28] No space left on device"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_fills_up_while_tensorboard_writes_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "open_event_file", lambda folder: Path("/dev/full").open("wb", buffering=0))  # noqa: SIM115
    notes: list[str] = []
    tracker = tracker_for("train", {}, out=tmp_path, key="k", mlflow=False, note=notes.append)
    for epoch in (1, 2):
        tracker.note(epoch, {"ce": 1.0})
    tracker.close()
    assert notes == ["TensorBoard is told no more: [Errno 28] No space left on device"]


def test_mlflow_is_told_where_it_is_asked_for_or_its_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert not wants_mlflow(None)
    assert wants_mlflow("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert wants_mlflow(None)


def test_a_broken_mlflow_is_noted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    monkeypatch.setitem(sys.modules, "mlflow.entities", None)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    notes: list[str] = []
    tracker = tracker_for("train", {}, out=tmp_path, key="k", mlflow=True, note=notes.append)
    for epoch in (1, 2):
        tracker.note(epoch, {"ce": 1.0})
    tracker.close()
    assert len(notes) == 1
    assert notes[0].startswith("MLflow is told no more: ")
    assert (tmp_path / "tensorboard" / "train").is_dir()


@pytest.mark.slow
def test_mlflow_holds_settings_and_curves_and_a_resumed_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tmp_path / "mlflow.db"

    def tell(epochs: tuple[int, ...]) -> None:
        one = MLflow("out distill", flattened({"lr": 0.1, "loss": {"kd": 2}}), default_store=store, key="abc")
        for epoch in epochs:
            one.note(epoch, {"kd": 1.0 / epoch, "share kd": 0.5, "late": float("nan")})
        one.close()

    tell((1, 2))
    tell((3,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = MlflowClient(tracking_uri=f"sqlite:///{store}")
        (experiment,) = [one for one in client.search_experiments() if one.name == tracking.EXPERIMENT]
        (run,) = client.search_runs([experiment.experiment_id])
        history = client.get_metric_history(run.info.run_id, "loss/kd")
    assert run.data.params == {"lr": "0.1", "loss.kd": "2"}
    assert [(one.step, one.value) for one in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert run.info.status == "FINISHED"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_importing_the_trackers_loads_neither_of_them() -> None:
    code = "import sys, edgepress.stages.tracking; print({'tensorboard', 'mlflow', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_settings_of_any_kind_become_numbers_and_words() -> None:
    settings: dict[str, Any] = {"a": 1, "b": {"c": None, "d": [1, "x"]}, "e": True}
    assert flattened(settings) == {"a": 1, "b.c": "null", "b.d": '[1, "x"]', "e": True}
