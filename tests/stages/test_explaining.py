"""A measured run names the layer of a broken file, and leaves a sound one alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from nets import artifact, context, net, stripes
from onnx import numpy_helper
from torch import nn

from edgepress.pipeline.choose import reasons_in
from edgepress.stages.artifact import Artifact, Context, Record
from edgepress.stages.export import Export
from edgepress.stages.exporting import export, float_twin, versions
from edgepress.stages.profile import Measure
from edgepress.stages.profiling import profile
from edgepress.stages.pruning import count_parameters
from edgepress.stages.quantization.qat import quantize
from edgepress.stages.quantize import Quantize

pytestmark = pytest.mark.slow

QUICK = Measure(seconds=0.3, all_cores=False, memory=False)
LAYERS = ("stem", "block.conv1", "block.conv2", "head")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Context]:
    """The small residual network, trained for a second, calibrated and exported for ONNX Runtime."""
    surroundings = context(tmp_path_factory.mktemp("export"), target="onnxruntime-cpu")
    quantized = quantize(Quantize(epochs=0, calibration=64), artifact(trained(surroundings)), surroundings)
    return export(Export(), quantized, surroundings), surroundings


def trained(surroundings: Context) -> nn.Module:
    """A network whose answers depend on every layer, as those of one with random weights do not."""
    torch.manual_seed(0)
    module = net().train()
    images, labels = stripes(256, seed=0)
    batch = surroundings.data.preprocessing.normalize(images)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(module(batch), labels).backward()
        optimizer.step()
    return module.eval()


def engine_facts(made: Artifact, surroundings: Context) -> dict[str, Any]:
    facts: dict[str, Any] = profile(QUICK, made, surroundings).records[-1].metrics["engines"]["int8"]
    return facts


def with_broken_scale(made: Artifact, layer: str, folder: Path) -> Artifact:
    (file,) = [file for file in made.files if file.variant == "int8"]
    model = onnx.load(str(file.onnx))
    (tensor,) = [entry for entry in model.graph.initializer if entry.name == f"module.{layer}.scale"]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(4), tensor.name))
    path = folder / "int8.onnx"
    onnx.save(model, str(path))
    broken = replace(file, path=path, onnx=path)
    return replace(made, files=tuple(broken if one is file else one for one in made.files))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_report_names_the_layer_whose_scale_is_four_times_off(
    exported: tuple[Artifact, Context], layer: str, tmp_path: Path
) -> None:
    made, surroundings = exported
    facts = engine_facts(with_broken_scale(made, layer, tmp_path), surroundings)
    assert not facts["parity"]["ok"]
    assert facts["divergence"]["layer"] == layer
    assert any(f"first at {layer} " in warning for warning in reasons_in(facts))


def test_a_sound_file_is_not_accused_and_its_layers_are_told(exported: tuple[Artifact, Context]) -> None:
    facts = engine_facts(*exported)
    assert "divergence" not in facts
    assert set(LAYERS) <= {layer["layer"] for layer in facts["layers"]["layers"]}


def test_layers_can_be_left_out(exported: tuple[Artifact, Context]) -> None:
    made, surroundings = exported
    settings = Measure(seconds=0.2, all_cores=False, memory=False, layers=False)
    assert "layers" not in profile(settings, made, surroundings).records[-1].metrics["engines"]["int8"]


def test_the_unpruned_model_is_quantized_too_and_compared_with_its_own_float_version(tmp_path: Path) -> None:
    surroundings = context(tmp_path)
    smaller = net(width=8)
    pruned = artifact().next(record=Record(stage="prune", settings={}, seconds=0, metrics={}), module=smaller)
    quantized = quantize(Quantize(epochs=0, calibration=64), pruned, surroundings)
    found = dict(versions(quantized, surroundings))
    assert list(found) == ["baseline", "baseline-int8", "pruned", "int8"]
    unpruned = found["baseline-int8"]
    assert unpruned.form == "quantized"
    assert unpruned.parent is not None
    assert count_parameters(unpruned.parent.module) == count_parameters(found["baseline"].module)
    files = export(Export(), quantized, surroundings).files
    twins = {file.variant: twin.variant for file in files if (twin := float_twin(file.variant, files))}
    assert (twins["baseline-int8"], twins["int8"]) == ("baseline", "pruned")
