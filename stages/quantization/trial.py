"""Networks as files that are timed and thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from ..artifact import Context
from ..onnx_file import write_onnx
from ..twins import computes_in_half
from .frozen import freeze
from .prepare import prepare
from .ranges import calibrate_
from .scheme import Scheme


class Writer(Protocol):
    """Writes a network as one ONNX file. half: with weights and arithmetic in float16."""

    def __call__(self, module: nn.Module, path: Path, *, half: bool = False) -> None: ...


def writer(context: Context, example: Tensor) -> Writer:
    """As the export stage writes networks for this target."""
    profile = context.profile
    dynamic_batch = bool(getattr(context.later.get("export"), "dynamic_batch", False))
    tensorrt = profile.runtime_version if profile.runtime == "tensorrt" else None

    def write(module: nn.Module, path: Path, *, half: bool = False) -> None:
        write_onnx(
            module, path, example=example, opset=profile.opset, dynamic_batch=dynamic_batch, metadata={}, half=half,
            tensorrt=tensorrt,
        )  # fmt: skip

    return write


def write_int8(
    module: nn.Module, path: Path, *, scheme: Scheme, images: Sequence[Tensor], write: Writer, context: Context
) -> None:
    """A float network in INT8, its ranges observed on a few batches: how good they are changes no time."""
    prepared = prepare(module, scheme)
    calibrate_(prepared, images)
    write(freeze(prepared.eval(), scheme), path, half=computes_in_half("int8", context.profile))
