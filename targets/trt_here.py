"""TensorRT on a GPU of this machine: engines that answer, and what their layers take and compute in."""

from __future__ import annotations

import importlib
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import gpu, installed, model_input
from .answers import BATCH
from .errors import RuntimeMissingError, StageError
from .jobs import Engine
from .layers import LEAST_RUNS, SKIPPED_RUNS, LayerTimes, in_int8
from .sessions import Array
from .tensorrt_tool import files, timed
from .trt_build import engine_of

PACKAGE = "tensorrt"
EXTRA = "'edgepress[tensorrt]'"
ON_THE_BOARD = (
    "a TensorRT engine is built on the board that runs it and fits no other machine: measure there with --device "
    "ssh://..., take the bundle there and run run.sh, or measure a stand-in runtime here"
)
CUDA_SCRIPT = "edgepress.targets.remote.board.trt_api"  # Python 3.6 without NumPy: the same calls as on a board
NUMPY = {"f": "float32", "e": "float16", "i": "int32", "q": "int64", "b": "int8", "?": "bool"}


def problem() -> str | None:
    """Why TensorRT does not run here, with the way out; None: it does."""
    found = gpu.find()
    if isinstance(found, gpu.NoGpu):
        return f"there is no NVIDIA GPU here ({found.why}), and {ON_THE_BOARD}"
    return installed.problem(PACKAGE, package=EXTRA)


def version() -> str:
    """The installed one; JetPack's package has no record of it, and is asked itself."""
    recorded = installed.version(PACKAGE)
    if recorded == "not installed" and importlib.util.find_spec(PACKAGE) is not None:
        return str(installed.load(PACKAGE, package=EXTRA).__version__)
    return recorded


def load(path: Path, *, precision: str) -> TrtSession:
    """Build the engine of a file, or find it, and load it."""
    trouble, found = problem(), gpu.find()
    if trouble or isinstance(found, gpu.NoGpu):
        raise RuntimeMissingError(f"{path.name} cannot be loaded here: {trouble}")
    trt = importlib.import_module(PACKAGE)
    return TrtSession(trt, engine_of(trt, path, precision=precision, gpu=found), path)


class TrtSession:
    """One engine in this process. Where its batch is open, buffers are made anew for a batch of another size."""

    def __init__(self, trt: Any, plan: bytes, path: Path) -> None:
        taken = model_input.read(path)
        self._api: Any = importlib.import_module(CUDA_SCRIPT)
        try:
            self.raw: Any = self._api.Session(trt, self._api.Cuda(), plan, list(taken.shape))
        except self._api.ApiError as error:
            raise StageError(f"TensorRT cannot run {path.name}: {error}") from None
        self.input_name = taken.name
        self.input_shape = (None if taken.has_open_batch else 1, *taken.shape[1:])
        self.input_type = "float32" if taken.vocabulary is None else "int64"

    def __call__(self, batch: Array) -> tuple[Array, ...]:
        raw = self.raw
        data = np.ascontiguousarray(batch, dtype=NUMPY[raw.input.letter])  # before 10 it reads int32 for int64
        try:
            if list(data.shape) != raw.input.shape:
                raw.take(list(data.shape))
            raw.cuda.send_from(raw.input.address, data.ctypes.data, data.nbytes)
            raw.run()
            answers = [(raw.cuda.receive(one.address, one.size), one) for one in raw.outputs]
        except self._api.ApiError as error:
            raise StageError(f"TensorRT cannot answer {len(batch)} samples (at most {BATCH}): {error}") from None
        arrays = [np.frombuffer(found, NUMPY[one.letter]).reshape(one.shape) for found, one in answers]
        return tuple(one.astype(np.float32) if one.dtype == np.float16 else one.copy() for one in arrays)

    def close(self) -> None:
        self.raw = None


def int8_layers(path: Path, *, precision: str) -> dict[str, Any]:
    """Counted in the built engine, as on a board."""
    weighted = [layer for layer in _inspected(load(path, precision=precision)) if layer.is_weighted]
    return in_int8([(layer.name, layer.kind, layer.reads) for layer in weighted])


def times(engine: Engine, sample: Array, *, seconds: float) -> LayerTimes:
    """By TensorRT's profiler, in runs apart from those that are timed."""
    session = load(engine.path, precision=engine.precision)
    for _ in range(SKIPPED_RUNS):
        session(sample)
    recorder = _recorder(importlib.import_module(PACKAGE))
    session.raw.context.profiler = recorder
    began, runs = time.monotonic(), 0
    while runs < LEAST_RUNS or time.monotonic() - began < seconds:
        session(sample)
        runs += 1
    means = [(name, total / runs) for name, total in recorder.total_ms.items()]
    return LayerTimes(layers=timed.layers(means, _inspected(session)), runs=runs)


def _inspected(session: TrtSession) -> tuple[files.EngineLayer, ...]:
    trt = importlib.import_module(PACKAGE)
    inspector = session.raw.engine.create_engine_inspector()
    return files.engine_layers(str(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))


def _recorder(trt: Any) -> Any:
    class Recorder(trt.IProfiler):  # type: ignore[misc]
        """Told the time of each layer after each run."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.total_ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.total_ms[layer_name] = self.total_ms.get(layer_name, 0.0) + ms

    return Recorder()
