"""A layer that was broken on purpose is the one that is blamed, whichever it is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from nets import net
from numpy.typing import NDArray
from onnx import numpy_helper

from edgepress.stages.comparison import SQNR_LIMIT_DB, sqnr_db
from edgepress.stages.divergence import find_divergence
from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.quantization.frozen import freeze
from edgepress.stages.quantization.prepare import prepare
from edgepress.stages.quantization.ranges import calibrate_
from edgepress.stages.quantization.scheme import Flavour, Scheme

LAYERS = ("stem", "block.conv1", "block.conv2", "head")
IMAGES = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Pair(NamedTuple):
    twin: Path
    quantized: Path


@pytest.fixture(scope="module", params=["openvino", "ort-u8"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A small residual network in float, and calibrated in that flavour."""
    flavour: Flavour = request.param
    folder = tmp_path_factory.mktemp(flavour)
    module = net()
    prepared = prepare(module, Scheme(flavour=flavour))
    calibrate_(prepared, [IMAGES])
    found = Pair(folder / "float.onnx", folder / "int8.onnx")
    for path, version in zip(found, (module, freeze(prepared, Scheme(flavour=flavour))), strict=True):
        write_onnx(version, path, example=IMAGES[:1], opset=17, dynamic_batch=False, metadata={})
    return found


def broken(pair: Pair, scale: str, factor: float, folder: Path) -> Path:
    """The quantised file with one scale multiplied."""
    model = onnx.load(str(pair.quantized))
    (tensor,) = [entry for entry in model.graph.initializer if entry.name == scale]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), scale))
    path = folder / "broken.onnx"
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("factor", [4.0, 0.25])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_weight_scale_that_is_four_times_off_is_found_at_its_layer(
    pair: Pair, layer: str, factor: float, tmp_path: Path
) -> None:
    found = find_divergence(pair.twin, broken(pair, f"module.{layer}.scale", factor, tmp_path), IMAGES.numpy())
    assert found.first is not None
    assert found.first.layer == layer
    assert not found.first.rounds_input
    assert found.sentence().startswith(f"it diverges from its float twin first at {layer} ")


@pytest.mark.parametrize("layer", LAYERS)
def test_an_activation_scale_that_cuts_the_range_to_a_quarter_is_found_at_the_layer_it_feeds(
    pair: Pair, layer: str, tmp_path: Path
) -> None:
    # its name depends on how torch traced the network, so it is found from the layer's weight
    nodes = onnx.load(str(pair.quantized)).graph.node
    (weight,) = [node.output[0] for node in nodes if f"module.{layer}.scale" in node.input]
    (rounded,) = [node.input[0] for node in nodes if weight in node.input]
    (behind,) = [node for node in nodes if rounded in node.output]
    while behind.op_type == "Flatten":  # rounded before it
        (behind,) = [node for node in nodes if behind.input[0] in node.output]
    scale = behind.input[1]
    found = find_divergence(pair.twin, broken(pair, scale, 0.25, tmp_path), IMAGES.numpy())
    assert found.first is not None
    assert found.first.layer == layer
    assert found.first.rounds_input


def test_a_sound_file_has_no_layer_to_blame(pair: Pair) -> None:
    found = find_divergence(pair.twin, pair.quantized, IMAGES.numpy())
    assert found.first is None
    assert {point.layer for point in found.points} >= set(LAYERS)
    assert "no layer stands out" in found.sentence()


def test_every_tensor_behind_the_broken_layer_is_bad_and_none_loses_more(pair: Pair, tmp_path: Path) -> None:
    found = find_divergence(pair.twin, broken(pair, "module.stem.scale", 4.0, tmp_path), IMAGES.numpy())
    assert found.first is not None
    place = found.points.index(found.first)
    assert all(point.lost_db <= found.first.lost_db for point in found.points)
    assert all(point.sqnr_db > 15 for point in found.points[:place])


def test_facts_survive_json_and_name_the_layer(pair: Pair, tmp_path: Path) -> None:
    facts = find_divergence(pair.twin, broken(pair, "module.head.scale", 4.0, tmp_path), IMAGES.numpy()).facts()
    assert facts["layer"] == "head"
    assert len(facts["points"]) >= len(LAYERS)


def test_signal_to_noise_counts_decibels() -> None:
    wanted: NDArray[np.float32] = np.ones((4, 4), np.float32)
    assert sqnr_db(wanted * np.float32(1.1), wanted) == pytest.approx(20.0, abs=1e-3)
    assert sqnr_db(wanted * 4, wanted) == pytest.approx(-9.54, abs=0.01)
    assert sqnr_db(wanted, wanted) == SQNR_LIMIT_DB
    assert sqnr_db(wanted, 0 * wanted) == -SQNR_LIMIT_DB
