"""The network as it is exported: integers for weights, and quantise and dequantise nodes for activations.

Each module computes the same numbers as its training form, and knows how to write itself as ONNX nodes; torch's own
exporter would write weights as float and refuses 7-bit grids.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .early import round_early_, round_on_both_sides_
from .layers import ActivationRounding, RoundedLayer
from .prepare import rounded_layers, rounding_before
from .scheme import Scheme

NEXT_TO_NOTHING = 1e-20  # far below one step of any scale, and not zero
LARGEST_BIAS = 2.0**31 - 256  # in steps: what float32 has below the end of int32


class _QuantizeDequantize(torch.autograd.Function):
    """Round to a grid and come back. symbolic: QuantizeLinear and DequantizeLinear (ONNX, since opset 10)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point.to(torch.int32), low, high)

    @staticmethod
    def symbolic(g: Any, x: Any, scale: Any, zero_point: Any, low: int, high: int) -> Any:
        quantized = g.op("QuantizeLinear", x, scale, zero_point)
        return g.op("DequantizeLinear", quantized, scale, zero_point).setType(x.type())


class _DequantizeWeight(torch.autograd.Function):
    """Integers to weights, one scale for each output channel. symbolic: DequantizeLinear with axis 0 (opset 13)."""

    @staticmethod
    def forward(ctx: Any, integers: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        return integers.float() * scale.reshape(-1, *[1] * (integers.ndim - 1))

    @staticmethod
    def symbolic(g: Any, integers: Any, scale: Any, zero_point: Any) -> Any:
        kind = integers.type().with_dtype(torch.float32)
        return g.op("DequantizeLinear", integers, scale, zero_point, axis_i=0).setType(kind)


class _RoundWeight(torch.autograd.Function):
    """Float weights to a grid and back, for parsers that want to see float weights (TensorRT 8)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(weight, scale, zero_point.to(torch.int32), 0, -127, 127)

    @staticmethod
    def symbolic(g: Any, weight: Any, scale: Any, zero_point: Any) -> Any:
        quantized = g.op("QuantizeLinear", weight, scale, zero_point, axis_i=0)
        return g.op("DequantizeLinear", quantized, scale, zero_point, axis_i=0).setType(weight.type())


class FrozenRounding(nn.Module):
    """An activation's rounding with its range fixed."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, rounding: ActivationRounding) -> None:
        super().__init__()
        scale, zero_point = rounding.scale_and_zero_point()
        kind = torch.int8 if rounding.grid == "signed" else torch.uint8
        self.limits = rounding.limits
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero_point.to(kind))

    def forward(self, x: Tensor) -> Tensor:
        return _QuantizeDequantize.apply(x, self.scale, self.zero_point, *self.limits)  # type: ignore[no-any-return,no-untyped-call]


class FrozenBias(nn.Module):
    """A bias as integers, in steps of the input's scale times the weights' of that channel, as sums are counted."""

    integers: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, bias: Tensor, scale: Tensor) -> None:
        super().__init__()
        steps = (bias.detach().double() / scale.double()).round().clamp(-LARGEST_BIAS, LARGEST_BIAS)
        self.register_buffer("integers", steps.to(torch.int32))
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int32))

    def forward(self) -> Tensor:
        return _DequantizeWeight.apply(self.integers, self.scale, self.zero_point)  # type: ignore[no-any-return,no-untyped-call]


class FrozenLayer(nn.Module):
    """A convolution or linear layer with integer weights.

    input_scale: where the bias is to be integers as well. ONNX Runtime (1.31.1) leaves a matrix product with a float
    bias in float; a product of more than two dimensions has its bias added by a node of its own, which stays in float.
    """

    weight: Tensor
    scale: Tensor
    zero_point: Tensor
    bias: Tensor | None

    def __init__(self, source: RoundedLayer, *, float_weights: bool, input_scale: Tensor | None = None) -> None:
        super().__init__()
        weight, bias = source.folded()
        scale = source.weight_scale(weight)
        self.whole_bias = None
        if input_scale is not None and bias is not None:
            # the bias of a channel that is hardly anything else has to fit, too
            scale = torch.maximum(scale, bias.detach().abs() / (input_scale * LARGEST_BIAS))
            self.whole_bias = FrozenBias(bias, scale * input_scale)
        integers = (weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).round()
        integers = integers.clamp(-source.weight_limit, source.weight_limit)
        self.float_weights = float_weights
        on_grid = integers * scale.reshape(-1, *[1] * (weight.ndim - 1))
        self.register_buffer("weight", on_grid.detach() if float_weights else integers.detach().to(torch.int8))
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int8))
        self.register_buffer("bias", _seen_bias(source, bias))
        self.source = [source]  # in a list: its parameters are not to be exported

    def forward(self, x: Tensor) -> Tensor:
        restore = _RoundWeight if self.float_weights else _DequantizeWeight
        weight = restore.apply(self.weight, self.scale, self.zero_point)  # type: ignore[no-untyped-call]
        added_by_itself = isinstance(self.source[0].layer, nn.Linear) and x.ndim != 2
        bias = self.bias if self.whole_bias is None or added_by_itself else self.whole_bias()
        return self.source[0].compute(x, weight, bias)


def _seen_bias(source: RoundedLayer, bias: Tensor | None) -> Tensor | None:
    """The bias; of a linear layer without one, next to nothing, and different for each output.

    OpenVINO (2026.4.1) forgets the scale of an INT8 matrix product that a ReLU and another one follow where the bias is
    one number for all outputs, as zeros are.
    """
    if not isinstance(source.layer, nn.Linear) or (bias is not None and bool(bias.any())):
        return None if bias is None else bias.detach().clone()
    return NEXT_TO_NOTHING * torch.arange(1.0, 1 + source.layer.out_features)


def freeze(module: nn.Module, scheme: Scheme) -> nn.Module:
    """A copy of a prepared network in the form that is exported."""
    frozen = copy.deepcopy(module).eval()
    before = rounding_before(frozen) if scheme.every_edge else {}
    given = {
        layer: before[name].scale_and_zero_point()[0]
        for name, layer in rounded_layers(frozen).items()
        if name in before
    }
    for name, part in list(frozen.named_modules()):
        if isinstance(part, ActivationRounding):
            frozen.set_submodule(name, FrozenRounding(part))
        elif isinstance(part, RoundedLayer):
            layer = FrozenLayer(part, float_weights=scheme.float_weights, input_scale=given.get(part))
            frozen.set_submodule(name, layer)
    if scheme.rounds_early:
        round_early_(frozen, FrozenRounding)
    if scheme.every_edge:
        round_on_both_sides_(frozen, FrozenRounding)
    return frozen
