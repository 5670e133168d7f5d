"""The accuracy of a network where it will run: exported, loaded by OpenVINO, asked one test image after the other."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgepress.stages.artifact import Artifact, Context
from edgepress.stages.contract import InputContract
from edgepress.stages.data import Data, loader
from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.quantization.frozen import freeze
from edgepress.stages.quantization.qat import quantize
from edgepress.stages.quantize import Quantize
from edgepress.targets import profiles
from edgepress.targets.runtimes import target

PROFILE, RUNTIME = "openvino-cpu", "openvino"
BATCH = 500  # of reading; the runtime gets one image at a time, as it would on a device


def in_int8(net: nn.Module, settings: Quantize, data: Data, work: Path, *, seed: int) -> Artifact:
    """The network after the quantize stage. data: what calibrates and trains it."""
    contract = InputContract(
        shape=data.shape, dynamic_batch=False, preprocessing=data.preprocessing, classes=data.classes
    )
    start = Artifact(module=net.eval(), contract=contract, base="model", key="0" * 16)
    context = Context(data=data, profile=profiles.load(PROFILE), work=work, seed=seed, build={"model": lambda: net})
    return quantize(settings, start, context)


def accuracy_there(network: nn.Module | Artifact, data: Data, folder: Path) -> float:
    """Per cent of the test images, answered by OpenVINO."""
    module, precision = network, "fp32"
    if isinstance(network, Artifact):
        assert network.scheme is not None, "the quantize stage has run"
        module, precision = freeze(network.module, network.scheme), "int8"
    assert isinstance(module, nn.Module)
    profile = profiles.load(PROFILE)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "network.onnx"
    example = data.preprocessing.example(1)
    write_onnx(module, path, example=example, opset=profile.opset, dynamic_batch=False, metadata={})
    session = target(RUNTIME).load(path, precision=precision)
    right = 0
    for images, labels, _ in loader(data.test, batch_size=BATCH, shuffle=False, seed=0, epoch=0):
        x = data.preprocessing.normalize(images).numpy()
        answers = torch.stack([torch.from_numpy(session(one[None])[0][0].copy()).argmax() for one in x])
        right += int((answers == labels).sum())
    return 100 * right / len(data.test)
