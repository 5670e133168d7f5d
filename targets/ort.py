"""ONNX Runtime on the CPU: load a model, answer, and tell what was fused into INT8."""

import tempfile
from pathlib import Path
from typing import Any

from . import installed
from .errors import RecipeError, StageError
from .sessions import Array

INT8_KINDS = frozenset(
    {
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
    }
)
FLOAT_KINDS = frozenset({"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}  # what NumPy calls them
WEIGHT_INPUT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}  # every other kind has its weight second


class OnnxRuntime:
    """The CPU execution provider."""

    name = "onnxruntime"

    def unavailable(self) -> str | None:
        return installed.problem("onnxruntime", package="onnxruntime")

    def version(self) -> str:
        return installed.version("onnxruntime")

    def load(self, path: Path, *, precision: str, threads: int = 1) -> "OrtSession":
        if precision not in {"fp32", "int8"}:
            raise StageError(
                f"ONNX Runtime computes {precision} as fp32 on a CPU: ask for fp32 or int8, or use openvino"
            )
        return OrtSession(open_session(path, threads=threads))

    def int8_layers(self, path: Path, *, precision: str = "int8", threads: int = 1) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            open_session(path, threads=threads, save_to=optimized)
            return _count(optimized)


class OrtSession:
    """One loaded model."""

    def __init__(self, session: Any) -> None:
        self._session = session
        first = session.get_inputs()[0]
        self.input_name: str = first.name
        self.input_shape = tuple(size if isinstance(size, int) else None for size in first.shape)
        self.input_type = TYPES.get(first.type, first.type)
        self._outputs = [output.name for output in session.get_outputs()]

    def __call__(self, batch: Array) -> tuple[Array, ...]:
        return tuple(self._session.run(self._outputs, {self.input_name: batch}))

    def close(self) -> None:
        self._session = None


def open_session(path: Path, *, threads: int, save_to: Path | None = None, profile_to: Path | None = None) -> Any:
    """The runtime's own session. save_to: for the optimised graph. profile_to: where the names of its records begin."""
    ort = installed.load("onnxruntime", package="onnxruntime")
    if path.suffix != ".onnx":
        raise RecipeError(f"ONNX Runtime reads .onnx files and was given {path.name}")
    if not path.is_file():
        raise RecipeError(f"no model at {path}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if threads > 1:  # else its threads go on spinning while the next model is timed
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if save_to is not None:
        options.log_severity_level = 4  # it would warn that the saved graph suits this machine only
        options.optimized_model_filepath = str(save_to)
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base class of their own
        raise StageError(f"ONNX Runtime {ort.__version__} cannot load {path.name}: {error}") from None


def _count(optimized: Path) -> dict[str, Any]:
    import onnx

    graph = onnx.load(str(optimized)).graph
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # a weight that was not fused hangs behind its own DequantizeLinear
        if node.op_type in {"DequantizeLinear", "Constant"} and all(name in constants for name in node.input if name):
            constants.update(node.output)
    kinds: dict[str, int] = {}
    float_layers = []
    for node in graph.node:
        if node.op_type not in INT8_KINDS | FLOAT_KINDS:
            continue
        if node.input[WEIGHT_INPUT.get(node.op_type, 1)] not in constants:
            continue  # a product of two activations, as in attention
        kinds[node.op_type] = kinds.get(node.op_type, 0) + 1
        if node.op_type in FLOAT_KINDS:
            float_layers.append(node.name or node.output[0])
    return {
        "int8_layers": sum(kinds.get(kind, 0) for kind in INT8_KINDS),
        "weighted_layers": sum(kinds.values()),
        "kinds": kinds,
        "float_layers": float_layers,
    }
