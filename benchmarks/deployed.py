"""The accuracy of a network where it will run: exported, loaded by OpenVINO, asked one test image after the other."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgepress.stages.artifact import Artifact, Context
from edgepress.stages.contract import InputContract
from edgepress.stages.data import Data
from edgepress.stages.deployed import right_answers
from edgepress.stages.quantization.frozen import freeze
from edgepress.stages.quantization.qat import quantize
from edgepress.stages.quantize import Quantize
from edgepress.targets import profiles

PROFILE, RUNTIME = "openvino-cpu", "openvino"


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
    right = right_answers(module, data, folder=folder, runtime=RUNTIME, precision=precision)
    return 100 * right / len(data.test)
