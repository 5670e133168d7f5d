"""OpenVINO on the CPU: load a model, answer, and tell which layers run in INT8."""

import functools
from pathlib import Path
from typing import Any

from . import installed
from .errors import RecipeError, StageError
from .sessions import Array

WEIGHTED_KINDS = frozenset({"Convolution", "GroupConvolution", "Deconvolution", "FullyConnected"})
INT8_PRECISIONS = frozenset({"i8", "u8"})
HINTS = {
    "fp32": "f32",
    "int8": "f32",
    "bf16": "bf16",
    "fp16": "f16",
}  # the rest of an INT8 model stays in f32
NEEDED = {
    "bf16": "BF16",
    "fp16": "FP16",
}  # what the CPU must be able to do, or the hint is ignored in silence


class OpenVINO:
    """The CPU plug-in, tuned for the latency of single inferences."""

    name = "openvino"

    def unavailable(self) -> str | None:
        return installed.problem("openvino", package="openvino")

    def version(self) -> str:
        return installed.version("openvino")

    def load(self, path: Path, *, precision: str, threads: int = 1) -> "OvSession":
        return OvSession(compile_file(path, precision=precision, threads=threads))

    def int8_layers(self, path: Path, *, precision: str = "int8", threads: int = 1) -> dict[str, Any]:
        kinds: dict[str, int] = {}
        float_layers = []
        for node in compile_file(path, precision=precision, threads=threads).get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            layer = info["layerType"].astype(str) if "layerType" in info else ""
            if layer not in WEIGHTED_KINDS:
                continue
            runs_in = info["runtimePrecision"].astype(str)
            kind = f"{layer} {runs_in}"
            kinds[kind] = kinds.get(kind, 0) + 1
            if runs_in not in INT8_PRECISIONS:
                float_layers.append(node.get_friendly_name())
        weighted = sum(kinds.values())
        return {
            "int8_layers": weighted - len(float_layers),
            "weighted_layers": weighted,
            "kinds": kinds,
            "float_layers": float_layers,
        }


class OvSession:
    """One compiled model with one request.

    An array stays bound to the request until another one comes: finding out what was given costs Python 8 us a call,
    which the runtime's own tools do not pay either.
    """

    def __init__(self, compiled: Any) -> None:
        port = compiled.input(0)
        self._tensor = installed.load("openvino", package="openvino").Tensor
        self._request = compiled.create_infer_request()
        self._bound: Array | None = None
        self.input_name: str = port.get_any_name()
        self.input_type: str = port.get_element_type().to_dtype().name
        self.input_shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())

    def __call__(self, batch: Array) -> tuple[Array, ...]:
        if batch is not self._bound:
            # what cannot be shared is copied, and then the copy would not see a change of the array
            shared = batch.flags.c_contiguous and batch.flags.writeable
            self._request.set_input_tensor(self._tensor(batch, shared_memory=shared))
            self._bound = batch if shared else None
        answers: tuple[Array, ...] = self._request.infer(None).to_tuple()
        return answers

    def close(self) -> None:
        self._request = self._bound = None


def save_ir(onnx: Path, xml: Path) -> None:
    """Convert an ONNX file to OpenVINO's own format, .xml and .bin, with its weights as they are."""
    openvino = installed.load("openvino", package="openvino")
    model = _read(_core(), onnx)
    openvino.save_model(model, str(xml), compress_to_fp16=False)  # by default it would round the weights


def compile_file(path: Path, *, precision: str, threads: int, counters: bool = False) -> Any:
    """The runtime's own compiled model. counters: let it count the time of each layer, which costs some."""
    openvino = installed.load("openvino", package="openvino")
    if precision not in HINTS:
        raise RecipeError(f"OpenVINO has no precision {precision!r} (known: {', '.join(HINTS)})")
    core = _core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision in NEEDED and NEEDED[precision] not in capabilities:
        raise StageError(
            f"this CPU has no {precision} (OpenVINO lists {', '.join(capabilities)}): measure fp32 or int8"
        )
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERF_COUNT": counters,
    }
    model = _read(core, path)
    try:
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise StageError(f"OpenVINO {openvino.__version__} cannot compile {path.name}: {error}") from None


@functools.cache
def _core() -> Any:
    """One for the whole process, and never destroyed.

    On CPUs with AMX each gives the thread a signal stack of its own and takes it back at its end (OpenVINO 2026.4.1).
    Two whose lives overlap leave a stack behind that is gone, and the next signal ends the process.
    """
    return installed.load("openvino", package="openvino").Core()


def _read(core: Any, path: Path) -> Any:
    if path.suffix not in {".onnx", ".xml"}:
        raise RecipeError(f"OpenVINO reads .onnx and .xml files and was given {path.name}")
    if not path.is_file():
        raise RecipeError(f"no model at {path}")
    try:
        return core.read_model(str(path))
    except RuntimeError as error:
        raise StageError(f"OpenVINO cannot read {path.name}: {error}") from None
