"""Training is left out where calibration does, and layers go back to float where INT8 costs too much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nets import artifact, context, data, net, stripes
from torch import nn

from edgepress.stages.artifact import Context
from edgepress.stages.data import Data
from edgepress.stages.quantization import sensitivity
from edgepress.stages.quantization.doubts import doubts
from edgepress.stages.quantization.fallback import fall_back
from edgepress.stages.quantization.posttraining import calibrate
from edgepress.stages.quantization.prepare import prepare, rounded_layers, roundings
from edgepress.stages.quantization.qat import calibration_images, quantize
from edgepress.stages.quantization.scheme import Scheme
from edgepress.stages.quantization.sensitivity import Ranking, Suspect, rank
from edgepress.stages.quantization.standing import Standing, bar
from edgepress.stages.quantize import Quantize
from edgepress.stages.splits import in_memory
from edgepress.targets import profiles
from edgepress.targets.profiles import Budget
from edgepress.targets.runtimes import target

SCHEME = Scheme(flavour="openvino")
GAINS = {"stem": 0.010, "block.conv1": 0.050, "block.conv2": 0.050, "head": 0.001}


def centred(module: nn.Module) -> nn.Module:
    """The same network with answers of every class."""
    known = data()
    images, _ = stripes(256, seed=7)
    with torch.no_grad():
        module.head.bias.sub_(module(known.preprocessing.normalize(images)).mean(0))
    return module


def answered_by(module: nn.Module) -> Data:
    """The usual pictures, labelled by what this network says: it is right on all of them."""
    known = data()
    splits = {}
    for seed, name in enumerate(("train", "val", "test")):
        images, _ = stripes(256, seed=seed)
        with torch.no_grad():
            splits[name] = in_memory(images, module(known.preprocessing.normalize(images)).argmax(1))
    return replace(known, **splits)


def surroundings(work: Path, module: nn.Module, **budget: float) -> tuple[Context, list[str]]:
    notes: list[str] = []
    around = context(work)
    return replace(around, data=answered_by(module), budget=Budget(**budget), note=notes.append), notes


def with_a_loud_feature() -> nn.Module:
    """Its head ignores one feature, whose size takes the head's grid away from the others."""
    module = net()
    with torch.no_grad():
        module.block.bn2.bias[0] = 3000.0
        module.head.weight[:, 0] = 0.0
    return centred(module)


def test_training_is_left_out_where_calibration_surely_meets_the_budget(tmp_path: Path) -> None:
    module = centred(net())
    around, notes = surroundings(tmp_path, module, accuracy_drop=20.0)
    metrics = quantize(Quantize(epochs=1), artifact(module), around).records[-1]
    assert "calibration alone meets the budget" in metrics.metrics["training_skipped"]
    assert metrics.metrics["training_seconds_saved"] > 0
    assert metrics.curves == {}
    assert any("s saved" in note for note in notes)


def test_a_budget_that_the_interval_does_not_clear_is_trained_for(tmp_path: Path) -> None:
    module = centred(net())
    around, _ = surroundings(tmp_path, module, accuracy_drop=0.2)  # 256 images cannot show so little
    record = quantize(Quantize(epochs=1), artifact(module), around).records[-1]
    assert "training_skipped" not in record.metrics
    assert record.curves


@pytest.mark.parametrize(("mode", "trains"), [("ptq", False), ("qat", True)])
def test_the_mode_decides_whatever_calibration_says(tmp_path: Path, mode: str, trains: bool) -> None:
    module = centred(net())
    around, _ = surroundings(tmp_path, module, accuracy_drop=20.0)
    record = quantize(Quantize(epochs=1, mode=mode), artifact(module), around).records[-1]  # type: ignore[arg-type]
    assert bool(record.curves) == trains


def test_without_a_budget_of_accuracy_it_trains(tmp_path: Path) -> None:
    module = centred(net())
    around, _ = surroundings(tmp_path, module)
    assert bar(module, around) is None
    assert quantize(Quantize(epochs=1), artifact(module), around).records[-1].curves


def test_where_the_validation_images_were_made_real_ones_tell_whether_the_budget_is_met(tmp_path: Path) -> None:
    module = centred(net())
    around, _ = surroundings(tmp_path, module, accuracy_drop=3.0)
    images, labels, _ = around.data.val.__getitems__(list(range(256)))
    real = replace(around, data=replace(around.data, decides=in_memory(images, (labels + torch.arange(256) % 2) % 4)))
    for known, value in ((around, 100.0), (real, 50.0)):
        found = bar(module, known)
        assert found is not None
        assert found.judge(module, known).value == value


def test_the_layer_that_does_the_damage_goes_back_to_float_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "gains_ms", lambda *_, **__: GAINS)
    module = with_a_loud_feature()
    around, notes = surroundings(tmp_path, module, accuracy_drop=3.0)
    after = quantize(Quantize(epochs=0), artifact(module), around)
    metrics = after.records[-1].metrics
    assert metrics["validation_calibrated"] < 90  # the head is of no use in INT8
    found = metrics["fallback"]
    assert [layer["layer"] for layer in found["float_layers"]] == ["head"]
    assert found["met"] is True
    assert metrics["validation_accuracy"] >= 97
    assert set(rounded_layers(after.module)) == {"stem", "block.conv1", "block.conv2"}
    assert after.scheme is not None
    assert after.scheme.exclude == ("head",)
    assert any("1 of 4 layers went back to float" in note for note in notes)


def test_fallback_off_leaves_every_layer_in_int8(tmp_path: Path) -> None:
    module = with_a_loud_feature()
    around, _ = surroundings(tmp_path, module, accuracy_drop=3.0)
    after = quantize(Quantize(epochs=0, fallback=False), artifact(module), around)
    assert len(rounded_layers(after.module)) == 4
    assert "fallback" not in after.records[-1].metrics


def test_a_network_that_misses_the_budget_in_float_keeps_its_layers(tmp_path: Path) -> None:
    around, _ = surroundings(tmp_path, centred(net()), accuracy=100.0)
    other = replace(artifact(net(seed=5)), parent=None)  # right by chance at most
    after = quantize(Quantize(epochs=0), other, around)
    assert "in float, too, the network misses the budget" in after.records[-1].metrics["fallback"]["sentence"]
    assert len(rounded_layers(after.module)) == 4


def standing(*, meets: bool) -> Standing:
    return Standing(value=90.0, drop=0.0, drop_ci95=(-1.0, 1.0), meets=meets, surely=meets)


def suspects(*names: str) -> Ranking:
    found = tuple(Suspect(layer=name, loss=1.0, sqnr_db=10.0, gain_ms=None) for name in names)
    return Ranking(suspects=found, untimed="nothing was timed")


class Chain(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(*(part for _ in range(9) for part in (nn.Linear(4, 4), nn.ReLU())))


@pytest.mark.parametrize("needed", [1, 2, 3, 4, 5, 6, 7, 8])
def test_the_fewest_layers_that_do_are_found(needed: int) -> None:
    names = [str(2 * place) for place in range(9)]
    images = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    prepared = calibrate(Chain(), SCHEME, [images], are_classes=False).module
    found = fall_back(
        prepared,
        Chain(),
        SCHEME,
        [images],
        ranking=suspects(*names),
        estimator="min-max",
        judge=lambda module: standing(meets=9 - len(rounded_layers(module)) >= needed),
    )
    assert [suspect.layer for suspect in found.layers] == names[:needed]
    assert found.standing.meets


def test_where_no_number_of_layers_does_all_stay_in_int8() -> None:
    images = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    prepared = calibrate(Chain(), SCHEME, [images], are_classes=False).module
    found = fall_back(
        prepared,
        Chain(),
        SCHEME,
        [images],
        ranking=suspects(*(str(2 * place) for place in range(9))),
        estimator="min-max",
        judge=lambda module: standing(meets=False),
    )
    assert found.module is prepared
    assert "all of them stay in INT8" in found.sentence()


def test_damage_that_saves_nothing_goes_back_first() -> None:
    slow = Suspect(layer="a", loss=0.1, sqnr_db=20.0, gain_ms=-0.2)
    fast = Suspect(layer="b", loss=5.0, sqnr_db=5.0, gain_ms=1.0)
    assert slow.worth > fast.worth


@pytest.mark.device
@pytest.mark.parametrize(("runtime", "profile"), [("openvino", "openvino-cpu"), ("onnxruntime", "onnxruntime-cpu")])
def test_the_time_that_int8_saves_is_read_from_the_runtime(runtime: str, profile: str) -> None:
    if target(runtime).unavailable():
        pytest.skip(str(target(runtime).unavailable()))
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval()
    images = torch.randn(8, 3, 32, 32)
    found = profiles.load(profile)
    scheme = Scheme(flavour=found.qdq)  # type: ignore[arg-type]
    prepared = calibrate(wide, scheme, [images], are_classes=False).module
    ranking = rank(prepared, wide, scheme, [images], profile=found, are_classes=False)
    assert ranking.untimed is None
    assert {suspect.layer for suspect in ranking.suspects} == {"0", "2", "4"}
    assert all(suspect.loss > 0 and suspect.gain_ms is not None for suspect in ranking.suspects)
    assert all(part.rounding for part in roundings(prepared))


def test_the_ranking_without_times_is_by_damage_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "gains_ms", lambda *_, **__: "no counters here")
    images = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    module = with_a_loud_feature()
    prepared = calibrate(module, SCHEME, [images], are_classes=True).module
    ranking = rank(prepared, module, SCHEME, [images], profile=profiles.load("openvino-cpu"), are_classes=True)
    assert ranking.untimed == "no counters here"
    assert ranking.suspects[0].layer == "head"
    assert [one.loss for one in ranking.suspects] == sorted((one.loss for one in ranking.suspects), reverse=True)


def noticed(around: Context, count: int = 256) -> str:
    return "; ".join(doubts(calibration_images(around, count), around))


def test_good_calibration_samples_raise_no_doubt(tmp_path: Path) -> None:
    assert noticed(context(tmp_path)) == ""


def test_too_few_samples_are_told_of(tmp_path: Path) -> None:
    assert "calibrated on 8 images: fewer than 32" in noticed(context(tmp_path), 8)


def test_samples_of_one_class_are_told_of(tmp_path: Path) -> None:
    around = context(tmp_path)
    assert around.data.train is not None
    places = (around.data.train.labels() == 2).nonzero().flatten()
    only = replace(around, data=replace(around.data, train=around.data.train.subset(places)))
    assert "are of the class 'c'" in noticed(only)


def test_samples_of_another_distribution_are_told_of(tmp_path: Path) -> None:
    around = context(tmp_path)
    images, labels = stripes(256, seed=9)
    inverted = replace(around, data=replace(around.data, train=in_memory(255 - images, labels)))
    assert "look unlike the validation images" in noticed(inverted)


def test_preparing_again_with_what_stayed_in_float_gives_the_stored_network(tmp_path: Path) -> None:
    """A stored network is rebuilt from its scheme: its names must be those that are written down."""
    module = net()
    scheme = Scheme(flavour="ort-u8", exclude=("block.conv1",))
    first = prepare(module, scheme)
    assert set(first.state_dict()) == set(prepare(net(), scheme).state_dict())
