"""Ranges are chosen by what was measured, and a correction stays only where it helps."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from nets import net
from torch import Tensor, nn

from edgepress.stages.quantization.bias import correct_bias_
from edgepress.stages.quantization.damage import answers, damage
from edgepress.stages.quantization.equalise import equalise_
from edgepress.stages.quantization.layers import ActivationRounding
from edgepress.stages.quantization.learned import learn_
from edgepress.stages.quantization.posttraining import calibrate, only_, with_floats
from edgepress.stages.quantization.prepare import float_again, prepare, rounded_layers, roundings
from edgepress.stages.quantization.ranges import ESTIMATORS, Estimator, calibrate_, keep_values, set_ranges_
from edgepress.stages.quantization.scheme import Scheme
from edgepress.stages.quantization.switching import set_rounding_

IMAGES = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SCHEME = Scheme(flavour="openvino")


def normal_with_an_outlier() -> Tensor:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    return torch.cat([values, torch.tensor([100.0, -100.0])])


def error_of(estimator: Estimator, values: Tensor, inside: float) -> float:
    """Of the values that are no outliers."""
    rounding = ActivationRounding("signed")
    set_ranges_({rounding: values}, estimator)
    near = values[values.abs() < inside]
    return float((rounding(near) - near).square().mean())


@pytest.mark.parametrize("estimator", ["percentile", "mse", "kl"])
def test_a_single_outlier_does_not_cost_the_others_their_resolution(estimator: Estimator) -> None:
    values = normal_with_an_outlier()
    assert error_of(estimator, values, 3.0) < error_of("min-max", values, 3.0)


def test_min_max_clips_nothing() -> None:
    rounding = ActivationRounding("signed")
    set_ranges_({rounding: normal_with_an_outlier()}, "min-max")
    assert float(rounding(torch.tensor(100.0))) == pytest.approx(100.0, rel=1e-5)


@pytest.mark.parametrize("grid", ["signed", "unsigned", "affine"])
def test_the_range_with_the_least_squared_error_is_at_least_as_good_as_every_other(grid: str) -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(1)) ** 3
    values = values.abs() if grid == "unsigned" else values
    errors = {}
    for estimator in ESTIMATORS:
        rounding = ActivationRounding(grid)  # type: ignore[arg-type]
        set_ranges_({rounding: values}, estimator)
        errors[estimator] = float((rounding(values) - values).square().mean())
    assert errors["mse"] <= errors["min-max"]
    assert errors["mse"] < errors["kl"] * 1.05


def test_a_tensor_of_zeros_gets_a_scale_that_is_not_zero() -> None:
    for estimator in ESTIMATORS:
        rounding = ActivationRounding("unsigned")
        set_ranges_({rounding: torch.zeros(100)}, estimator)
        assert float(rounding(torch.zeros(3)).abs().max()) == 0.0


def test_values_are_kept_of_the_float_network_with_their_extremes() -> None:
    prepared = prepare(net(), SCHEME)
    values = keep_values(prepared, [IMAGES[:32], IMAGES[32:]])
    assert set(values) == set(roundings(prepared))
    first = next(iter(values.values()))
    assert (float(first.min()), float(first.max())) == (float(IMAGES.min()), float(IMAGES.max()))
    assert all(part.rounding for part in roundings(prepared))


def test_calibration_takes_the_ranges_that_were_measured_best() -> None:
    found = calibrate(net(), SCHEME, [IMAGES], are_classes=True)
    tried = {name.removeprefix("ranges "): value for name, value in found.errors.items() if name.startswith("ranges")}
    assert set(tried) == set(ESTIMATORS)
    assert tried[found.estimator] <= min(tried.values()) / 0.98


def test_an_outlier_in_the_samples_makes_another_range_than_min_max_win() -> None:
    images = IMAGES.clone()
    images[50, 0, 0, 0] = 400.0  # not among the samples that judge
    found = calibrate(net(), SCHEME, [images], are_classes=True)
    assert found.estimator != "min-max"


class Uneven(nn.Module):
    """Two layers whose channels differ a thousandfold, and cancel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
        factors = torch.logspace(-1.5, 1.5, 8)
        with torch.no_grad():
            self.first.weight.mul_(factors.reshape(-1, 1, 1, 1))
            self.first.bias.mul_(factors)
            self.second.weight.div_(factors.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))).flatten(1)  # type: ignore[no-any-return]


def test_equalising_leaves_the_float_answers_as_they_were() -> None:
    prepared = prepare(net(), SCHEME).eval()
    set_rounding_(prepared, False)
    before = answers(prepared, [IMAGES])
    assert equalise_(prepared) == 1  # conv1 and conv2 of the block; the others meet at an addition
    torch.testing.assert_close(answers(prepared, [IMAGES]), before, rtol=1e-4, atol=1e-4)


def test_channels_that_differ_a_thousandfold_are_equalised_because_it_helps() -> None:
    found = calibrate(Uneven(), SCHEME, [IMAGES], are_classes=False)
    assert found.equalised == 1
    assert found.errors["equalised"] < 0.5 * found.errors[f"ranges {found.estimator}"]


def test_an_equalisation_that_does_not_help_is_dropped() -> None:
    found = calibrate(net(), SCHEME, [IMAGES], are_classes=True)
    helped = found.errors["equalised"] <= 0.98 * found.errors[f"ranges {found.estimator}"]
    assert bool(found.equalised) == helped


def test_a_corrected_bias_gives_each_channel_the_mean_of_the_float_network() -> None:
    prepared = prepare(net(), Scheme(flavour="openvino", weight_bits=7)).eval()
    calibrate_(prepared, [IMAGES])
    set_rounding_(prepared, False)
    wanted = answers(prepared, [IMAGES]).mean(0)
    set_rounding_(prepared, True)
    before = (answers(prepared, [IMAGES]).mean(0) - wanted).abs().max()
    assert correct_bias_(prepared, IMAGES) == 4
    after = (answers(prepared, [IMAGES]).mean(0) - wanted).abs().max()
    assert float(after) < 0.05 * float(before)


def test_one_layer_alone_is_rounded_with_what_it_is_given() -> None:
    prepared = prepare(net(), SCHEME).eval()
    calibrate_(prepared, [IMAGES])
    only_(prepared, "stem")
    assert [name for name, layer in rounded_layers(prepared).items() if layer.rounding] == ["stem"]
    assert sum(part.rounding for part in roundings(prepared)) == 1
    only_(prepared, None)
    torch.testing.assert_close(answers(prepared, [IMAGES]), answers(net(), [IMAGES]), rtol=1e-4, atol=1e-5)


def test_the_float_twin_of_a_rounded_network_has_the_weights_that_it_learned() -> None:
    source = net()
    prepared = prepare(source, SCHEME).eval()
    with torch.no_grad():
        for layer in rounded_layers(prepared).values():
            layer.layer.weight.mul_(1.1)
            if layer.norm is not None:
                layer.norm.bias.add_(0.1)
    set_rounding_(prepared, False)
    twin = float_again(prepared, source)
    torch.testing.assert_close(answers(twin, [IMAGES]), answers(prepared, [IMAGES]), rtol=1e-4, atol=1e-4)
    assert float((answers(twin, [IMAGES]) - answers(source, [IMAGES])).abs().max()) > 0.01


@pytest.mark.parametrize("flavour", ["trt", "openvino", "ort-u8"])
def test_ranges_survive_when_more_layers_stay_in_float(flavour: str) -> None:
    scheme = Scheme(flavour=flavour)  # type: ignore[arg-type]
    prepared = prepare(net(), scheme).eval()
    calibrate_(prepared, [IMAGES])
    wider = Scheme(flavour=flavour, exclude=("block.conv2",))  # type: ignore[arg-type]
    found = with_floats(net(), wider, prepared, [IMAGES], estimator="min-max")
    assert "block.conv2" not in rounded_layers(found)
    known = {name: part for name, part in prepared.named_modules() if isinstance(part, ActivationRounding)}
    for name, part in found.named_modules():
        if isinstance(part, ActivationRounding):
            assert bool(torch.isfinite(part.high))
            if name in known:
                assert float(part.high) == float(known[name].high)


def test_no_damage_is_none_and_the_divergence_of_classes_is_never_negative() -> None:
    wanted = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    assert damage(wanted, wanted, are_classes=True).loss == pytest.approx(0.0, abs=1e-7)
    assert damage(wanted + 0.1 * torch.randn(16, 4), wanted, are_classes=True).loss > 0
    assert damage(torch.full_like(wanted, float("nan")), wanted, are_classes=True).loss == float("inf")


@pytest.mark.parametrize("flavour", ["trt", "openvino", "ort-u8"])
def test_scales_that_learn_begin_at_what_was_calibrated_and_fall_back_to_what_they_learned(flavour: str) -> None:
    found = calibrate(net(), Scheme(flavour=flavour), [IMAGES], are_classes=True)  # type: ignore[arg-type]
    module = copy.deepcopy(found.module)
    learn_(module, [IMAGES])
    wanted = answers(found.module, [IMAGES])
    assert float((answers(module, [IMAGES]) - wanted).abs().max()) < 0.1 * float(wanted.abs().max())
    with torch.no_grad():
        for part in roundings(module):
            part.scale.factor.mul_(1.5)  # type: ignore[union-attr]
    wider = replace(found.scheme, exclude=("block.conv2",))
    mixed = with_floats(float_again(module, net()), wider, module, [IMAGES], estimator="min-max")
    learned = {name: part for name, part in module.named_modules() if isinstance(part, ActivationRounding)}
    for name, part in mixed.named_modules():
        if isinstance(part, ActivationRounding) and name in learned:
            scale, zero_point = part.scale_and_zero_point()
            wanted_scale, wanted_zero = learned[name].scale_and_zero_point()
            torch.testing.assert_close(scale, wanted_scale)
            assert abs(int(zero_point) - int(wanted_zero)) <= 1
