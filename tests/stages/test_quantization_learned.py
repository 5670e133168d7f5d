"""Scales that learn: with the gradient of the paper, from where they should begin, and into the exported file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from nets import artifact, context, net, with_float_biases
from torch import Tensor, nn

from edgepress.pipeline.store import Scheme as StoredScheme
from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.quantization.frozen import freeze
from edgepress.stages.quantization.layers import ActivationRounding, RoundedLayer
from edgepress.stages.quantization.learned import (
    LearnedLayer,
    LearnedRounding,
    LearnedScale,
    first_scale,
    learn_,
    rounded,
    scales,
)
from edgepress.stages.quantization.prepare import prepare, rounded_layers, roundings
from edgepress.stages.quantization.qat import quantize
from edgepress.stages.quantization.ranges import calibrate_
from edgepress.stages.quantization.scheme import Flavour, Scheme
from edgepress.stages.quantize import Quantize
from edgepress.targets.runtimes import target

FLAVOURS: tuple[Flavour, ...] = ("trt", "openvino", "ort-u8")
IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def calibrated(flavour: Flavour = "openvino", module: nn.Module | None = None) -> nn.Module:
    prepared = prepare(module or net(), Scheme(flavour=flavour))
    calibrate_(prepared, [IMAGES])
    learn_(prepared, [IMAGES])
    return prepared


def begun(part: nn.Module, *batches: Tensor) -> Any:
    """One part, calibrated on these batches, with scales that learn."""
    around = nn.Sequential(part)
    calibrate_(around, list(batches))
    learn_(around, batches)
    return around[0]


def answer(module: nn.Module) -> Tensor:
    with torch.no_grad():
        return module.eval()(IMAGES)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("low", "high", "zero"), [(-127, 127, 0), (0, 255, 0), (0, 255, 100)])
def test_the_gradient_of_a_scale_is_lsqs(low: int, high: int, zero: int) -> None:
    x = 3 * torch.randn(500, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor(0.013, requires_grad=True)
    x.requires_grad_()
    weight = torch.randn(500, generator=torch.Generator().manual_seed(2))
    out = rounded(x, scale, torch.tensor(zero, dtype=torch.int32), (low, high))
    (out * weight).sum().backward()
    v = x.detach() / 0.013
    inside = (v > low - zero) & (v < high - zero)
    assert 0 < int(inside.sum()) < 500
    slope = torch.where(inside, v.round() - v, torch.where(v > 0, float(high - zero), float(low - zero)))
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad, (weight * slope).sum(), rtol=1e-4, atol=1e-4)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight * inside)
    torch.testing.assert_close(out.detach(), (v.round().clamp(low - zero, high - zero) * 0.013), rtol=1e-5, atol=1e-6)


def test_a_channels_scale_learns_from_its_own_weights_alone() -> None:
    weight = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([0.01, 0.02, 0.03], requires_grad=True)
    out = rounded(weight, scale, torch.zeros(3, dtype=torch.int32), (-127, 127))
    out[1].sum().backward()
    assert scale.grad is not None
    assert scale.grad[0] == scale.grad[2] == 0
    v = weight[1] / 0.02
    torch.testing.assert_close(scale.grad[1], (v.round().clamp(-127, 127) - v * (v.abs() < 127)).sum())


def test_a_step_of_plain_sgd_moves_a_scale_as_in_the_paper() -> None:
    """s <- s - lr g dL/ds, g = 1 / sqrt(N Q_p)."""
    learned = LearnedScale((2,))
    learned.begin(torch.tensor([0.5, 0.02]))
    optimizer = torch.optim.SGD(learned.parameters(), lr=0.1)
    pull = torch.tensor([2.0, -3.0])
    (learned.learning(count=9, highest=127) * pull).sum().backward()
    optimizer.step()
    wanted = torch.tensor([0.5, 0.02]) - 0.1 * pull / math.sqrt(9 * 127)
    torch.testing.assert_close(learned.value()[:1], wanted[:1])
    torch.testing.assert_close(learned.value()[1:], wanted[1:])


def test_a_step_of_adam_moves_a_scale_by_the_rate_of_itself() -> None:
    learned = LearnedScale((2,))
    learned.begin(torch.tensor([0.5, 0.002]))
    optimizer = torch.optim.AdamW(learned.parameters(), lr=0.01, weight_decay=0.0)
    (learned.learning(count=9, highest=127) * torch.tensor([2.0, -3.0])).sum().backward()
    optimizer.step()
    torch.testing.assert_close(learned.value(), torch.tensor([0.5 * 0.99, 0.002 * 1.01]), rtol=1e-4, atol=0)


def test_a_scale_never_becomes_zero_or_negative() -> None:
    learned = LearnedScale(())
    learned.begin(torch.tensor(0.1))
    with torch.no_grad():
        learned.factor.fill_(-3.0)
    assert float(learned.value()) > 0
    torch.testing.assert_close(learned.value(), learned.learning(count=1, highest=127).detach())


def test_a_dead_channel_begins_with_a_scale_that_the_others_can_live_with() -> None:
    layer = nn.Linear(16, 3)
    with torch.no_grad():
        layer.weight[1] = 0.0
    learned = begun(RoundedLayer(layer, None, weight_limit=127))
    start = learned.scale.value()
    assert float(start[1]) == pytest.approx(1e-3 * float(start.max()))


def test_heavy_tails_begin_with_the_papers_scale_and_others_with_the_observed_one() -> None:
    layer = nn.Linear(4096, 2, bias=False)
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(0))
        layer.weight[1, 0] = 20.0
    learned = begun(RoundedLayer(layer, None, weight_limit=7))  # as of four bits
    assert isinstance(learned, LearnedLayer)
    weight, chosen = layer.weight.detach(), learned.scale.value()
    observed, papers = learned.observed(weight), first_scale(weight, highest=7)

    def error(row: int, scale: Tensor) -> float:
        return float(((weight[row] / scale).round().clamp(-7, 7) * scale - weight[row]).square().sum())

    assert error(0, observed[0]) < error(0, papers[0])
    assert error(1, papers[1]) < error(1, observed[1])
    torch.testing.assert_close(chosen, torch.stack([observed[0], papers[1]]))


def test_activations_begin_where_calibration_ended_or_finer() -> None:
    module = net()
    learned, observed = calibrated(module=module), prepare(module, Scheme(flavour="openvino"))
    calibrate_(observed, [IMAGES])
    pairs = list(zip(roundings(learned), roundings(observed), strict=True))
    assert all(isinstance(mine, LearnedRounding) and mine.rounding for mine, _ in pairs)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine.observed(), theirs.scale_and_zero_point())
        assert mine.scale_and_zero_point()[0] <= 1.000001 * theirs.scale_and_zero_point()[0]


def test_an_activation_with_a_heavy_tail_begins_with_the_papers_scale() -> None:
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 20.0  # where all but this one number would share a fifth of the grid
    place = begun(ActivationRounding("signed"), x)
    papers = float(2 * x.abs().mean() / math.sqrt(127))
    assert papers < float(place.observed()[0])
    assert float(place.scale_and_zero_point()[0]) == pytest.approx(papers)


def test_an_activation_that_was_always_zero_begins_with_a_range_of_one() -> None:
    place = begun(ActivationRounding("unsigned"), torch.zeros(4, 4))
    assert float(place.scale_and_zero_point()[0]) == pytest.approx(1 / 255)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_training_moves_every_kind_of_scale_and_the_frozen_form_has_them(flavour: Flavour) -> None:
    prepared = calibrated(flavour)
    before = [scale.value().clone() for scale in scales(prepared)]
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        prepared.train()(IMAGES).square().mean().backward()
        optimizer.step()
    after = [scale.value() for scale in scales(prepared.eval())]
    assert len(after) == len(roundings(prepared)) + len(rounded_layers(prepared))
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    scheme = Scheme(flavour=flavour, learned=True)
    frozen = with_float_biases(freeze(prepared, scheme))
    torch.testing.assert_close(answer(frozen), answer(prepared), rtol=1e-4, atol=1e-5)


def test_the_exported_scales_are_the_learned_ones(tmp_path: Path) -> None:
    prepared = calibrated()
    with torch.no_grad():
        for place, scale in enumerate(scales(prepared)):
            scale.factor.mul_(1.0 + 0.01 * (place + 1))
    path = tmp_path / "int8.onnx"
    scheme = Scheme(flavour="openvino", learned=True)
    write_onnx(freeze(prepared, scheme), path, example=IMAGES[:1], opset=13, dynamic_batch=False, metadata={})
    stored = [onnx.numpy_helper.to_array(t).ravel() for t in onnx.load(path).graph.initializer]
    for scale in scales(prepared):
        wanted = scale.value().numpy().ravel()
        assert any(one.shape == wanted.shape and np.array_equal(one, wanted) for one in stored)
    session = target("openvino").load(path, precision="int8", threads=1)
    got = np.concatenate([session(image[None])[0] for image in IMAGES.numpy()])
    assert (got.argmax(1) == answer(prepared).numpy().argmax(1)).mean() >= 0.95


def test_learned_scales_are_read_back_as_they_were() -> None:
    prepared = calibrated()
    with torch.no_grad():
        for scale in scales(prepared):
            scale.factor.mul_(1.1)
    again = prepare(net(seed=5), StoredScheme(flavour="openvino", learned=True))
    again.load_state_dict(prepared.state_dict())
    torch.testing.assert_close(answer(again), answer(prepared), rtol=0, atol=0)


def test_while_scales_learn_no_range_follows() -> None:
    prepared = calibrated()
    for part in roundings(prepared):
        part.observing = True
    before = [float(part.high) for part in roundings(prepared)]
    prepared.train()(IMAGES * 10)
    assert [float(part.high) for part in roundings(prepared)] == before


def test_polinos_gradient_at_the_rounded_weights_changes_the_weights_behind_them() -> None:
    """Algorithm 1: the float weights take the gradient that the rounded ones have."""
    torch.manual_seed(0)
    layer, x, wanted = nn.Linear(8, 3), torch.randn(5, 8), torch.randn(5, 3)
    ours = RoundedLayer(layer, None, weight_limit=127)
    (ours(x) - wanted).square().mean().backward()
    on_grid = ours.round_weight(layer.weight).detach().requires_grad_()
    (torch.nn.functional.linear(x, on_grid, layer.bias) - wanted).square().mean().backward()
    assert layer.weight.grad is not None
    assert on_grid.grad is not None
    torch.testing.assert_close(layer.weight.grad, on_grid.grad)


def test_ranges_alone_leave_every_weight_and_statistic(tmp_path: Path) -> None:
    module = net()
    settings = Quantize(mode="qat", epochs=4, batch_size=32, lr=1e-2, ranges="learned", trains="ranges")
    after = quantize(settings, artifact(module), context(tmp_path))
    assert after.scheme is not None
    assert after.scheme.learned
    fresh = prepare(module, after.scheme).state_dict()
    state = after.module.state_dict()
    moved = {name for name, value in state.items() if not torch.equal(value, fresh[name])}
    assert moved
    assert all(name.endswith((".factor", ".start", ".low", ".high", ".zero")) for name in moved)
    assert all(parameter.requires_grad for parameter in after.module.parameters())
    assert after.records[-1].metrics["validation_accuracy"] >= after.records[-1].metrics["validation_calibrated"]


def test_observed_ranges_have_no_parameters_to_learn() -> None:
    prepared = prepare(net(), Scheme(flavour="openvino"))
    assert not scales(prepared)
    assert {type(part) for part in roundings(prepared)} == {ActivationRounding}
