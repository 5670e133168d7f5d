"""How many test images a network answers rightly where it will run: exported, one image after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from ..targets.runtimes import target
from .data import Data
from .onnx_file import write_onnx
from .splits import loader

OPSET = 17
BATCH = 256  # of reading; the runtime gets one image at a time, as it would on a device


def right_answers(
    module: nn.Module, data: Data, *, folder: Path, runtime: str = "onnxruntime", precision: str = "fp32"
) -> int:
    """Of a classifier, on all test images of these data. folder: for its file, which does not stay."""
    path = folder / "network.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    example = data.preprocessing.example(1)
    write_onnx(module, path, example=example, opset=OPSET, dynamic_batch=False, metadata={})
    session = target(runtime).load(path, precision=precision)
    try:
        return sum(
            int(np.argmax(session(one[None])[0][0]) == label)
            for images, labels, _ in loader(data.test, batch_size=BATCH, shuffle=False, seed=0, epoch=0)
            for one, label in zip(data.preprocessing.normalize(images).numpy(), labels.tolist(), strict=True)
        )
    finally:
        session.close()
        path.unlink(missing_ok=True)
