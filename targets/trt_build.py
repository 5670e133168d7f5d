"""An ONNX file to a TensorRT engine on the GPU of this machine, by whichever generation of the Python package is here.

What differs between versions is asked for, never told from the number (tables of the Python API of 8.2 to 11.1).
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from . import model_input
from .answers import BATCH
from .digests import sha256
from .errors import StageError
from .gpu import Gpu
from .tensorrt_tool.advice import advise

WORKSPACE_BYTES = 2**30
HOME = "EDGEPRESS_HOME"
FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}  # a layer without INT8 kernels runs in FP16


def engine_of(trt: Any, path: Path, *, precision: str, gpu: Gpu) -> bytes:
    """The engine of a file, built the first time and kept for the next process. StageError: it cannot be built."""
    if precision not in FLAGS:
        raise StageError(f"TensorRT is asked for {', '.join(FLAGS)} here, and not for {precision}")
    parts = [sha256(path), precision, str(trt.__version__), gpu.name, gpu.compute_capability]
    kept = _folder() / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.plan"
    if kept.is_file():
        return kept.read_bytes()
    plan = _built(trt, path, precision)
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
    part.write_bytes(plan)
    part.replace(kept)
    return plan


def _folder() -> Path:
    """Where boards keep theirs, too."""
    return Path(os.environ.get(HOME) or Path.home() / ".cache" / "edgepress") / "engines"


def _built(trt: Any, path: Path, precision: str) -> bytes:
    logger = _logger(trt)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    builder = trt.Builder(logger)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # the only way from 10 on; gone in 11
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        said = [str(parser.get_error(number).desc()) for number in range(parser.num_errors)]
        raise StageError(_sentence(f"TensorRT {trt.__version__} cannot read {path.name}", said or logger.errors))
    config = builder.create_builder_config()
    _configure(trt, builder, config, path, precision)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise StageError(_sentence(f"TensorRT {trt.__version__} cannot build {path.name}", logger.errors))
    return bytes(plan)


def _configure(trt: Any, builder: Any, config: Any, path: Path, precision: str) -> None:
    if hasattr(config, "set_memory_pool_limit"):  # 8.4
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    else:
        config.max_workspace_size = WORKSPACE_BYTES
    for flag in FLAGS[precision]:
        if hasattr(trt.BuilderFlag, flag):  # from 11 on the types in the file decide
            config.set_flag(getattr(trt.BuilderFlag, flag))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else its layers cannot be read later
    taken = model_input.read(path)
    if taken.has_open_batch:
        shapes = [(size, *taken.shape[1:]) for size in (1, 1, BATCH)]  # least, best, most
        profile = builder.create_optimization_profile()
        profile.set_shape(taken.name, *shapes)
        config.add_optimization_profile(profile)


def _logger(trt: Any) -> Any:
    class Errors(trt.ILogger):  # type: ignore[misc]
        """Keeps what went wrong, and prints nothing."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Errors()


def _sentence(what: str, said: list[str]) -> str:
    helps = "".join(f". {text[0].upper()}{text[1:]}" for text in advise(said))
    return f"{what}: {said[-1][:400] if said else 'it does not say why'}{helps}"
