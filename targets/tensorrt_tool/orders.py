"""What trtexec is told of one engine, and the bytes that it reads: the same in a bundle and on a board over ssh."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..model_input import ModelInput
from ..operator_tables import version_tuple
from ..profiles import Profile
from ..sessions import Array, input_type
from ..trt import build_flags, timing_flags

WORKSPACE_MB = 1024  # where the profile does not say


@dataclass(frozen=True, kw_only=True)
class Orders:
    """Flags. build: to build the engine and stop. time: to time it. shapes: of every run that takes an engine."""

    build: Sequence[str]
    time: Sequence[str]
    shapes: Sequence[str]


def orders(
    taken: ModelInput,
    *,
    precision: str,
    profile: Profile,
    version: str,
    sample: str,
    seconds: float = 15.0,
    warmup_seconds: float = 2.0,
) -> Orders:
    """taken: what the ONNX file takes. version: of the TensorRT there. sample: the file to time, as the tool finds it.

    RecipeError: not in this precision and version.
    """
    precisions = ["int8", "fp16"] if precision == "int8" else [precision]  # a layer without INT8 kernels runs in FP16
    workspace_mb = int(profile.trtexec.get("workspace_mb", WORKSPACE_MB))
    shape = "x".join(map(str, taken.shape))
    shapes = [f"--shapes={taken.name}:{shape}"] if taken.has_open_batch else []  # refused where the batch is fixed
    timing = timing_flags(version, seconds=seconds, warmup_seconds=warmup_seconds)
    return Orders(
        build=[*build_flags(version, precisions=precisions, workspace_mb=workspace_mb), *shapes],
        time=[*timing, *shapes, f"--loadInputs={taken.name}:{sample}"],
        shapes=shapes,
    )


def as_read(samples: Array, version: str) -> Array:
    """As trtexec reads an input. Before version 10 TensorRT's parser makes int32 of an input of int64."""
    kind = input_type(samples)
    if kind == "int64" and version_tuple(version) < (10,):
        kind = "int32"
    return np.ascontiguousarray(samples, dtype=kind)
