"""Show the curves of a training while it goes on: in TensorBoard always, in MLflow where it is asked for."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

GROUPS = ("share", "balance", "validation", "learning rate")  # what is no loss itself
EXPERIMENT = "edgepress"
LONGEST_VALUE = 250  # letters of a setting that every MLflow server takes


class Tracker(Protocol):
    """Who is told the figures of every epoch."""

    def note(self, epoch: int, figures: Mapping[str, float]) -> None:
        """The figures after an epoch; 1 is the first."""

    def close(self) -> None:
        """The training is over."""


class Untracked:
    """Tells nobody."""

    def note(self, epoch: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def tracker_for(
    stage: str, settings: Mapping[str, Any], *, out: Path, key: str, mlflow: bool, note: Callable[[str], None]
) -> Tracker:
    """Tell TensorBoard, and MLflow if that is wished, how a stage's training goes.

    settings: its hyperparameters. key: a stage that is resumed under the same key goes on in MLflow where it was.
    note: told when a tracker fails; the training never does.
    """
    flat = flattened(settings)
    told: list[Tracker] = [_Careful(TensorBoard(out / "tensorboard" / stage, flat), note=note)]
    if mlflow:
        told.append(_Careful(MLflow(f"{out.name} {stage}", flat, default_store=out / "mlflow.db", key=key), note=note))
    return _Several(told)


def wants_mlflow(asked: str | None) -> bool:
    """Whether MLflow is to be told: by an option, or because the environment names a server."""
    return asked == "mlflow" or bool(os.environ.get("MLFLOW_TRACKING_URI"))


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    """Nested settings under dotted names, as numbers and words."""
    flat: dict[str, str | float | bool] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, str)):
            flat[prefix + key] = value
        else:
            flat[prefix + key] = json.dumps(value, default=str)
    return flat


def tag(series: str) -> str:
    """A series' name with its group first: `loss/kd`, `share/student kd`."""
    for group in GROUPS:
        if f" {group} " in f" {series} ":
            rest = " ".join(f" {series} ".replace(f" {group} ", " ", 1).split())
            return f"{group}/{rest}" if rest else group
    return f"loss/{series}"


class TensorBoard:
    """Scalars by epoch, and the hyperparameters, as event files in a folder.

    They are written here and now. TensorBoard's own writer has a thread for it, which dies with a traceback on a full
    disk, and loads TensorFlow where that is installed.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path, settings: Mapping[str, str | float | bool]) -> None:
        self.folder, self.settings = folder, settings
        self._file: BinaryIO | None = None

    def note(self, epoch: int, figures: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import scalar

        try:
            if self._file is None:
                self._open(epoch)
            for series, value in figures.items():
                if math.isfinite(value):
                    self._add(step=epoch, summary=scalar(tag(series), value))  # type: ignore[no-untyped-call]
            assert self._file is not None
            self._file.flush()
        except OSError:
            with suppress(OSError):
                self.close()
            raise

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self, epoch: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from torch.utils.tensorboard.summary import hparams

        self._file = open_event_file(self.folder)
        self._add(file_version="brain.Event:2")
        # Later epochs in older files are of a run that was stopped, or of other settings: TensorBoard drops them.
        self._add(step=epoch, session_log=SessionLog(status=SessionLog.START))
        for summary in hparams(dict(self.settings), {"validation": 0.0}):  # type: ignore[no-untyped-call]
            self._add(summary=summary)

    def _add(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self._file).write(Event(wall_time=time.time(), **event).SerializeToString())


def open_event_file(folder: Path) -> BinaryIO:
    """A new file under a name by which TensorBoard knows it."""
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}").open("wb")


class MLflow:
    """One MLflow run for each training, on the server of MLFLOW_TRACKING_URI or in a database file."""

    name = "MLflow"

    def __init__(
        self, title: str, settings: Mapping[str, str | float | bool], *, default_store: Path, key: str
    ) -> None:
        self.title, self.settings, self.default_store, self.key = title, settings, default_store, key
        self._client: Any = None
        self._run = ""

    def note(self, epoch: int, figures: Mapping[str, float]) -> None:
        with _hushed():
            if self._client is None:
                self._open()
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            metrics = [
                Metric(tag(series), value, now, epoch) for series, value in figures.items() if math.isfinite(value)
            ]
            self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        if self._client is not None:
            with _hushed():
                self._client.set_terminated(self._run)

    def _open(self) -> None:
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),  # MLflow 3 reports its use elsewhere unless told not to
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),  # by default a server that is gone is waited for for minutes
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        ):
            os.environ.setdefault(name, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.default_store.resolve()}"
        client = MlflowClient(tracking_uri=store)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        runs = client.search_runs([experiment], f"tags.`edgepress.key` = '{self.key}'", max_results=1)
        if runs:
            self._run = runs[0].info.run_id
            client.update_run(self._run, status="RUNNING")
        else:
            run = client.create_run(experiment, run_name=self.title, tags={"edgepress.key": self.key})
            self._run = run.info.run_id
            params = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in self.settings.items()]
            client.log_batch(self._run, params=params[:100])  # as many as one request may hold
        self._client = client


class _Named(Tracker, Protocol):
    name: str


class _Careful:
    """A tracker that cannot stop a training: when it fails it is left alone, and the user told once."""

    def __init__(self, inner: _Named, *, note: Callable[[str], None]) -> None:
        self.inner, self.note_user, self.failed = inner, note, False

    def note(self, epoch: int, figures: Mapping[str, float]) -> None:
        self._try(lambda: self.inner.note(epoch, figures))

    def close(self) -> None:
        self._try(self.inner.close)

    def _try(self, call: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            call()
        except Exception as error:  # a full disk, a server that is gone, a broken install: not worth a training
            self.failed = True
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.note_user(f"{self.inner.name} is told no more: {lines[0]}")


@dataclass(frozen=True)
class _Several:
    trackers: Sequence[Tracker]

    def note(self, epoch: int, figures: Mapping[str, float]) -> None:
        for one in self.trackers:
            one.note(epoch, figures)

    def close(self) -> None:
        for one in self.trackers:
            one.close()


@contextmanager
def _hushed() -> Iterator[None]:
    """Warnings of MLflow's own parts (3.17 and SQLAlchemy 2.1) are nothing that a user can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
