"""Rounding is where the scheme wants it, is as small as it may be, and survives export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from nets import artifact, context, net, with_float_biases
from torch import Tensor, nn

from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.quantization.frozen import FrozenLayer, freeze
from edgepress.stages.quantization.layers import ActivationRounding, RoundedLayer
from edgepress.stages.quantization.prepare import prepare, rounded_layers, roundings
from edgepress.stages.quantization.qat import quantize, scheme_for
from edgepress.stages.quantization.ranges import calibrate_
from edgepress.stages.quantization.scheme import Flavour, Scheme
from edgepress.stages.quantization.switching import set_rounding_, switch_
from edgepress.stages.quantize import Quantize
from edgepress.targets import profiles
from edgepress.targets.errors import StageError
from edgepress.targets.runtimes import target

FLAVOURS: tuple[Flavour, ...] = ("trt", "openvino", "ort-u8")
IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def calibrated(scheme: Scheme, module: nn.Module | None = None) -> torch.fx.GraphModule:
    prepared = prepare(module or net(), scheme)
    calibrate_(prepared, [IMAGES])
    return prepared


def answer(module: nn.Module) -> Tensor:
    with torch.no_grad():
        return module.eval()(IMAGES)  # type: ignore[no-any-return]


@pytest.mark.parametrize("bits", [7, 8])
def test_a_quantized_weight_is_within_half_a_step_of_the_original(bits: int) -> None:
    prepared = prepare(net(), Scheme(flavour="openvino", weight_bits=bits))  # type: ignore[arg-type]
    for layer in rounded_layers(prepared).values():
        weight, _ = layer.folded()
        half_step = layer.weight_scale(weight).reshape(-1, *[1] * (weight.ndim - 1)) / 2
        assert bool(((layer.round_weight(weight) - weight).abs() <= half_step * 1.001).all())


@pytest.mark.parametrize("grid", ["signed", "unsigned", "affine"])
def test_a_rounded_activation_is_within_half_a_step_inside_its_range(grid: str) -> None:
    rounding = ActivationRounding(grid)  # type: ignore[arg-type]
    x = torch.linspace(0.0 if grid == "unsigned" else -2.0, 3.0, 1001)
    rounding.observing, rounding.rounding = True, False
    rounding(x)
    rounding.observing, rounding.rounding = False, True
    scale, _ = rounding.scale_and_zero_point()
    assert float((rounding.eval()(x) - x).abs().max()) <= float(scale) / 2 * 1.01


def test_zero_is_always_on_the_grid() -> None:
    """Padding is zeros: a grid without zero would shift every border."""
    rounding = ActivationRounding("affine")
    rounding.low.fill_(0.7)
    rounding.high.fill_(2.0)
    assert float(rounding.eval()(torch.zeros(1))) == 0.0


def test_batch_norm_is_folded_exactly() -> None:
    module = net()
    prepared = prepare(module, Scheme(flavour="openvino"))
    set_rounding_(prepared, False)
    torch.testing.assert_close(answer(prepared), answer(module), rtol=1e-4, atol=1e-5)
    assert not any(name.endswith("bn1") for name, _ in prepared.named_children())


def test_a_layer_in_training_with_learning_batch_norm_equals_the_float_layers_it_replaces() -> None:
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
    norm.running_var.uniform_(0.5, 2.0)
    rounded = RoundedLayer(layer, norm, weight_limit=127).train()
    rounded.rounding = False
    x = torch.randn(4, 3, 8, 8)
    expected = F.batch_norm(layer(x), None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(rounded(x), expected, rtol=1e-4, atol=1e-5)


def test_a_channel_that_batch_norm_switched_off_stays_finite() -> None:
    layer, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
    with torch.no_grad():
        norm.weight[0] = 0.0
    rounded = RoundedLayer(layer, norm, weight_limit=127).train()
    assert bool(torch.isfinite(rounded(torch.randn(4, 3, 8, 8))).all())


@pytest.mark.parametrize("weight", [0.0, 1e-9])
def test_a_channel_that_is_nothing_but_bias_keeps_its_bias_in_whole_numbers(weight: float) -> None:
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight[0] = weight
        layer.bias.copy_(torch.tensor([3.0, -0.5]))
    frozen = FrozenLayer(
        RoundedLayer(layer, None, weight_limit=127), float_weights=False, input_scale=torch.tensor(1e-3)
    )
    x = torch.randint(0, 256, (8, 4)) * 1e-3
    assert frozen.whole_bias is not None
    assert int(frozen.whole_bias.integers.abs().max()) < 2**31
    torch.testing.assert_close(frozen(x)[:, 0], torch.full((8,), 3.0))
    torch.testing.assert_close(frozen(x), layer(x), atol=0.01, rtol=0.0)


def grids(prepared: nn.Module) -> dict[str, str]:
    return {name: part.grid for name, part in prepared.named_modules() if isinstance(part, ActivationRounding)}


def test_tensorrt_gets_signed_numbers_at_inputs_and_skips_and_nowhere_else() -> None:
    prepared = prepare(net(), Scheme(flavour="trt"))
    assert set(grids(prepared).values()) == {"signed"}
    # inputs of stem, conv1 (which is the skip too), conv2 and head; the sum itself is not rounded
    assert len(grids(prepared)) == 4


def test_openvino_gets_unsigned_numbers_behind_relus() -> None:
    found = grids(prepare(net(), Scheme(flavour="openvino")))
    assert sorted(found.values()) == ["signed", "unsigned", "unsigned", "unsigned"]


def test_onnx_runtime_gets_both_operands_of_an_addition_and_its_result() -> None:
    found = grids(prepare(net(), Scheme(flavour="ort-u8")))
    assert set(found.values()) <= {"unsigned", "affine"}
    assert len(found) == 6  # the image, stem, conv1, conv2, the sum, and the pooled features


def test_the_skip_operand_of_a_residual_addition_is_rounded() -> None:
    prepared = prepare(net(), Scheme(flavour="trt"))
    addition = next(node for node in prepared.graph.nodes if "add" in node.name and node.op == "call_function")
    modules = dict(prepared.named_modules())
    kinds = [type(modules.get(str(operand.target))) for operand in addition.args]
    assert kinds == [ActivationRounding, RoundedLayer]


def test_excluded_layers_stay_in_float() -> None:
    prepared = prepare(net(), Scheme(flavour="openvino", exclude=("head", "block")))
    assert set(rounded_layers(prepared)) == {"stem"}


def test_excluding_everything_is_refused() -> None:
    with pytest.raises(StageError, match="excluded"):
        prepare(net(), Scheme(flavour="openvino", exclude=("stem", "block", "head")))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_network_that_cannot_be_traced_is_rounded_layer_by_layer(flavour: Flavour) -> None:
    module = Branches()
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    scheme = Scheme(flavour=flavour)
    prepared = prepare(module, scheme)
    calibrate_(prepared, [x])
    with torch.no_grad():
        wanted, got, shipped = module(x), prepared(x), with_float_biases(freeze(prepared, scheme))(x)
    assert len(rounded_layers(prepared)) == 1
    assert not torch.equal(got, wanted)
    torch.testing.assert_close(got, wanted, atol=0.05 * float(wanted.abs().max()), rtol=0)
    torch.testing.assert_close(shipped, got, atol=1e-5, rtol=1e-5)


class Asking(Branches):
    """Its code asks a layer for more than an answer, as EdgeNeXt's does for the device of a weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.layer.weight.device)[..., : self.layer.in_features])


def test_layers_that_are_rounded_by_themselves_are_asked_for_what_they_were() -> None:
    module, scheme = Asking(), Scheme(flavour="openvino")
    prepared = prepare(module, scheme)
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    calibrate_(prepared, [x])
    with torch.no_grad():
        torch.testing.assert_close(freeze(prepared, scheme)(x), prepared(x), atol=1e-5, rtol=1e-5)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = prepared.get_submodule("layer").nonsense


@pytest.mark.device
@pytest.mark.parametrize("bias", ["none", "zeros"])
@pytest.mark.parametrize(("runtime", "flavour"), [("onnxruntime", "ort-u8"), ("openvino", "openvino")])
def test_linear_layers_without_a_bias_answer_as_in_torch(
    bias: str, runtime: str, flavour: Flavour, tmp_path: Path
) -> None:
    if target(runtime).unavailable():
        pytest.skip(str(target(runtime).unavailable()))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 32, bias=bias != "none"), nn.ReLU(), nn.Linear(32, 3, bias=bias != "none"))
    for part in (module[0], module[2]):
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    x, scheme = torch.randn(16, 32), Scheme(flavour=flavour)
    prepared = prepare(module, scheme)
    calibrate_(prepared, [x])
    path = tmp_path / "net.onnx"
    write_onnx(freeze(prepared, scheme), path, example=x[:1], opset=17, dynamic_batch=False, metadata={})
    session = target(runtime).load(path, precision="int8")
    got = np.concatenate([session(row[None].numpy())[0] for row in x])
    with torch.no_grad():
        np.testing.assert_allclose(got, prepared(x).numpy(), atol=0.02)


def test_excluding_the_only_layer_of_such_a_network_leaves_nothing_to_round() -> None:
    with pytest.raises(StageError, match="no convolution or linear layer was found"):
        prepare(Branches(), Scheme(flavour="openvino", exclude=("layer",)))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_calibration_alone_keeps_nearly_every_answer(flavour: Flavour) -> None:
    module = net()
    agreement = (answer(calibrated(Scheme(flavour=flavour))).argmax(1) == answer(module).argmax(1)).float().mean()
    assert float(agreement) > 0.9


def test_evaluation_never_moves_a_range() -> None:
    prepared = calibrated(Scheme(flavour="openvino"))
    switch_(prepared, epoch=0, epochs=10)  # ranges learn now
    before = [float(rounding.high) for rounding in roundings(prepared)]
    prepared.eval()(IMAGES * 10)
    assert [float(rounding.high) for rounding in roundings(prepared)] == before
    prepared.train()(IMAGES * 10)
    assert [float(rounding.high) for rounding in roundings(prepared)] != before


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("bits", [7, 8])
def test_the_frozen_form_computes_the_same_numbers(flavour: Flavour, bits: int) -> None:
    scheme = Scheme(flavour=flavour, weight_bits=bits, float_weights=flavour == "trt")  # type: ignore[arg-type]
    prepared = calibrated(scheme)
    frozen = freeze(prepared, scheme)
    for part in frozen.modules():
        if isinstance(part, FrozenLayer) and part.whole_bias is not None and part.bias is not None:
            assert bool(((part.whole_bias() - part.bias).abs() <= 0.51 * part.whole_bias.scale).all())
    torch.testing.assert_close(answer(with_float_biases(frozen)), answer(prepared), rtol=1e-4, atol=1e-5)


def exported(tmp_path: Path, scheme: Scheme, *, opset: int = 13) -> tuple[Path, torch.fx.GraphModule]:
    prepared = calibrated(scheme)
    path = tmp_path / "int8.onnx"
    write_onnx(freeze(prepared, scheme), path, example=IMAGES[:1], opset=opset, dynamic_batch=False, metadata={})
    return path, prepared


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_exported_model_answers_like_the_torch_model(tmp_path: Path, flavour: Flavour, runtime: str) -> None:
    path, prepared = exported(tmp_path, Scheme(flavour=flavour))
    session = target(runtime).load(path, precision="int8", threads=1)
    got = np.concatenate([session(image[None])[0] for image in IMAGES.numpy()])
    wanted = answer(prepared).numpy()
    assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.95
    assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()


def test_weights_are_stored_as_bytes_within_seven_bits(tmp_path: Path) -> None:
    path, _ = exported(tmp_path, Scheme(flavour="openvino", weight_bits=7))
    weights = [onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if len(t.dims) > 1]
    assert {weight.dtype for weight in weights} == {np.dtype(np.int8)}
    assert max(np.abs(weight.astype(int)).max() for weight in weights) == 63


def test_tensorrt_8_sees_float_weights_behind_quantise_and_dequantise(tmp_path: Path) -> None:
    path, _ = exported(tmp_path, Scheme(flavour="trt", float_weights=True))
    graph = onnx.load(path).graph
    makers = {output: node for node in graph.node for output in node.output}
    floats = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    for conv in convs:
        dequantize = makers[conv.input[1]]
        quantize_node = makers[dequantize.input[0]]
        assert (dequantize.op_type, quantize_node.op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert quantize_node.input[0] in floats
    assert len(convs) == 3


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_no_scale_hides_behind_an_identity_and_no_norm_is_left(tmp_path: Path, flavour: Flavour) -> None:
    path, _ = exported(tmp_path, Scheme(flavour=flavour))
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"Identity", "BatchNormalization", "Constant"}


@pytest.mark.parametrize(
    ("flavour", "runtime"), [("openvino", "openvino"), ("trt", "openvino"), ("ort-u8", "onnxruntime")]
)
def test_the_runtime_really_runs_the_convolutions_in_int8(tmp_path: Path, flavour: Flavour, runtime: str) -> None:
    path, _ = exported(tmp_path, Scheme(flavour=flavour))
    found = target(runtime).int8_layers(path)
    assert found["int8_layers"] >= 3  # the convolutions; ONNX Runtime leaves a small head in float


def test_the_signed_layout_does_not_fuse_in_onnx_runtime(tmp_path: Path) -> None:
    """Why a layout for each runtime is needed at all."""
    path, _ = exported(tmp_path, Scheme(flavour="trt"))
    assert target("onnxruntime").int8_layers(path)["int8_layers"] == 0


def test_training_with_rounding_is_at_least_as_good_as_calibration(tmp_path: Path) -> None:
    after = quantize(Quantize(epochs=2, batch_size=32), artifact(), context(tmp_path))
    metrics = after.records[-1].metrics
    assert metrics["validation_accuracy"] >= metrics["validation_calibrated"]
    assert after.form == "quantized"
    assert metrics["layers"] == 4


def test_older_tensorrt_wants_float_weights_and_saturating_cpus_want_7_bits() -> None:
    assert scheme_for(profiles.load("x86-avx2")).weight_bits == 7
    assert scheme_for(profiles.load("jetson-orin-nano")).float_weights is False
    with pytest.raises(StageError, match="no INT8"):
        scheme_for(profiles.load("jetson-nano"))


def test_an_unknown_name_in_exclude_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="did you mean 'head'"):
        quantize(Quantize(exclude=("heed",)), artifact(), context(tmp_path))


def test_a_frozen_layer_carries_no_training_parameters() -> None:
    scheme = Scheme(flavour="openvino")
    frozen = freeze(calibrated(scheme), scheme)
    assert any(isinstance(part, FrozenLayer) for part in frozen.modules())
    assert not list(frozen.parameters())
