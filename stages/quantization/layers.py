"""Layers that round as the device will: activations, and convolutions and linear layers with rounded weights."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scheme import Grid

SMALLEST_SCALE = 1e-8  # TensorRT refuses a scale of 0, which a dead channel would have
SMALLEST_FACTOR = 1e-6  # of a channel that batch norm has switched off
RANGE_MOMENTUM = 0.1  # how much one batch moves the observed range


class ActivationRounding(nn.Module):
    """Rounds a tensor to 8 bits with one scale for all of it, and observes its range until told to stop.

    The gradient passes where the value lies in the range (straight-through estimator, Jacob et al., 2018,
    arXiv:1712.05877, section 3).
    """

    low: Tensor
    high: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.observing = False  # follows in training and calibration; evaluation never moves a range
        self.rounding = True
        self.register_buffer("low", torch.tensor(float("inf")))
        self.register_buffer("high", torch.tensor(float("-inf")))

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer of the grid."""
        return (-128, 127) if self.grid == "signed" else (0, 255)

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        """float32 scale and int32 zero point, scalars, from the observed range."""
        low, high = self.low.clamp(max=0.0), self.high.clamp(min=0.0)
        zero = torch.zeros((), dtype=torch.int32, device=low.device)
        if self.grid == "signed":
            return (torch.maximum(-low, high) / 127).clamp(min=SMALLEST_SCALE), zero
        if self.grid == "unsigned":
            return (high / 255).clamp(min=SMALLEST_SCALE), zero
        scale = ((high - low) / 255).clamp(min=SMALLEST_SCALE)
        return scale, (-low / scale).round().clamp(0, 255).to(torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        if self.observing and (self.training or not self.rounding):
            self._observe(x.detach())
        if not self.rounding:
            return x
        scale, zero_point = self.scale_and_zero_point()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, *self.limits)

    def _observe(self, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        if torch.isinf(self.low):
            self.low.copy_(low)
            self.high.copy_(high)
        else:
            self.low.lerp_(low, RANGE_MOMENTUM)
            self.high.lerp_(high, RANGE_MOMENTUM)


class RoundedLayer(nn.Module):
    """A convolution or linear layer whose weights are rounded for each output channel, batch norm folded in.

    While batch norm learns, weights are rounded as they will be folded and the scaling is undone behind the layer, so
    that the statistics stay those of the float network (Jacob et al., 2018, section 3.2). Once it is frozen, and in
    eval mode, the layer computes exactly what is exported.
    """

    layer: nn.Conv2d | nn.Linear  # or a convolution of another dimension, which has the same parts
    norm: nn.BatchNorm2d | None
    norm_name: str | None = None  # of the batch norm in the network that this layer was taken from

    def __init__(self, layer: nn.Module, norm: nn.Module | None, *, weight_limit: int) -> None:
        super().__init__()
        self.layer = cast("nn.Conv2d | nn.Linear", layer)
        self.norm = cast("nn.BatchNorm2d | None", norm)
        self.weight_limit = weight_limit
        self.norm_frozen = False
        self.rounding = True

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with the batch norm's running statistics folded in."""
        weight, bias = self.layer.weight, self.layer.bias
        if self.norm is None:
            return weight, bias
        factor = self._factor()
        assert self.norm.running_mean is not None
        shift = self.norm.running_mean if bias is None else self.norm.running_mean - bias
        return self._scaled(weight, factor), self.norm.bias - shift * factor

    def weight_scale(self, weight: Tensor) -> Tensor:
        """One scale for each output channel: the largest weight falls on the end of the grid."""
        largest = weight.detach().abs().flatten(start_dim=1).amax(dim=1)
        return (largest / self.weight_limit).clamp(min=SMALLEST_SCALE)

    def round_weight(self, weight: Tensor) -> Tensor:
        """The weight as the device will see it."""
        if not self.rounding:
            return weight
        scale = self.weight_scale(weight)
        zeros = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
        return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -self.weight_limit, self.weight_limit)

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's own arithmetic with another weight and bias."""
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, bias)
        return self.layer._conv_forward(x, weight, bias)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is None or self.norm_frozen or not self.training:
            weight, bias = self.folded()
            return self.compute(x, self.round_weight(weight), bias)
        factor = self._factor().detach()
        factor = torch.where(factor.abs() < SMALLEST_FACTOR, SMALLEST_FACTOR, factor)  # it is divided by below
        out = self.compute(x, self.round_weight(self._scaled(self.layer.weight, factor)), None)
        out = out / factor.reshape(-1, *[1] * (out.ndim - 2))
        if self.layer.bias is not None:
            out = out + self.layer.bias.reshape(-1, *[1] * (out.ndim - 2))
        return self.norm(out)  # type: ignore[no-any-return]

    def _factor(self) -> Tensor:
        assert self.norm is not None
        assert self.norm.running_var is not None
        return self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)

    @staticmethod
    def _scaled(weight: Tensor, factor: Tensor) -> Tensor:
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


class RoundedByItself(nn.Module):
    """A rounded layer with the rounding of what it is given, and of what it gives where the runtime wants that."""

    def __init__(self, layer: RoundedLayer, *, before: ActivationRounding, after: ActivationRounding | None) -> None:
        super().__init__()
        self.before, self.rounded = before, layer
        self.after = nn.Identity() if after is None else after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.rounded(self.before(x)))  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        """What the code between the layers asks the layer for: a weight's device, how many channels it takes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "rounded" not in self._modules:
                raise
            rounded = super().__getattr__("rounded")
            return getattr(getattr(rounded, "source", [rounded])[0].layer, name)  # frozen layers know where from
