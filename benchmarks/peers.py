"""What ONNX Runtime's quantize_static and nncf.quantize make of an exported network, by their defaults."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np


def static(model: Path, images: np.ndarray[Any, Any], folder: Path) -> dict[str, Path]:
    """quantize_static by its defaults, and as ONNX Runtime's page for its CPU recommends."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"input": image[None]}

    ready = folder / "ready.onnx"
    quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
    files = {"ORT default": folder / "default.onnx", "ORT u8s8": folder / "u8s8.onnx"}
    quantize_static(str(ready), str(files["ORT default"]), Reader())
    quantize_static(
        str(ready), str(files["ORT u8s8"]), Reader(), quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
    )  # fmt: skip
    return files


def nncf_file(model: Path, images: np.ndarray[Any, Any], folder: Path, runtime: str) -> dict[str, Path]:
    """nncf.quantize by its defaults, for OpenVINO as its own model; nothing where it is not installed."""
    try:
        import nncf
    except ImportError:
        print("nncf is not installed: left out", file=sys.stderr)
        return {}
    dataset = nncf.Dataset([image[None] for image in images])
    if runtime == "openvino":
        import openvino

        made = nncf.quantize(openvino.Core().read_model(str(model)), dataset)
        path = folder / "nncf.xml"
        openvino.save_model(made, str(path), compress_to_fp16=False)
        return {"nncf": path}
    import onnx

    path = folder / "nncf.onnx"
    onnx.save(nncf.quantize(onnx.load(str(model)), nncf.Dataset([{"input": image[None]} for image in images])), path)
    return {"nncf": path}
