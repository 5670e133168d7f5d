"""Scales that are learned with the weights, in place of those that follow from observed ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .layers import SMALLEST_SCALE, ActivationRounding, RoundedLayer
from .scheme import Grid, Scheme

Learned = TypeVar("Learned", bound="LearnedRounding | LearnedLayer")
SMALLEST_FACTOR = 0.01  # of a scale, of where it began: it must not become zero, nor negative
SMALLEST_SHARE = (
    1e-3  # of a channel's scale, of the layer's largest: a dead channel that wakes up must not be all there is
)


def rounding_for(grid: Grid, scheme: Scheme) -> ActivationRounding:
    """The rounding of an activation, as the scheme wants it."""
    return LearnedRounding(grid) if scheme.learned else ActivationRounding(grid)


def layer_for(layer: nn.Module, norm: nn.Module | None, scheme: Scheme) -> RoundedLayer:
    """The rounded form of a layer, as the scheme wants it."""
    kind = LearnedLayer if scheme.learned else RoundedLayer
    return kind(layer, norm, weight_limit=scheme.weight_limit)


class LearnedScale(nn.Module):
    """One scale, or one for each output channel, that learns: s in LSQ (Esser et al., 2020, arXiv:1902.08153).

    It is learned as a multiple of where it began, with the gradient that makes plain SGD take exactly the paper's
    step, lr g dL/ds with g = 1 / sqrt(N Q_p). AdamW's steps know no gradient's size: it changes a scale by about lr
    of itself, where a step of the scale's own would be several times a small one (Jain et al., 2020, arXiv:1903.08066,
    learn logarithms for that reason).
    """

    start: Tensor
    factor: nn.Parameter

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("start", torch.ones(tuple(shape)))
        self.factor = nn.Parameter(torch.ones(tuple(shape)))

    @torch.no_grad()
    def begin(self, scale: Tensor) -> None:
        """Learn from here on."""
        self.start.copy_(scale.clamp(min=max(SMALLEST_SCALE, SMALLEST_SHARE * float(scale.max()))))
        self.factor.fill_(1.0)

    def value(self) -> Tensor:
        """As it is now, without gradient: what is exported."""
        return (self.start * self.factor.detach().clamp(min=SMALLEST_FACTOR)).clamp(min=SMALLEST_SCALE)

    def learning(self, *, count: int, highest: int) -> Tensor:
        """The same with gradient. count: N, numbers that share it. highest: Q_p, the largest on the grid."""
        weight = 1 / math.sqrt(count * highest) / self.start.square()
        factor = self.factor.clamp(min=SMALLEST_FACTOR)
        return (self.start * (factor.detach() + (factor - factor.detach()) * weight)).clamp(min=SMALLEST_SCALE)


class LearnedRounding(ActivationRounding):
    """An activation whose scale is learned. N is the numbers of one sample; the zero point stays."""

    zero: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self.scale = LearnedScale(())
        self.register_buffer("zero", torch.zeros((), dtype=torch.int32))

    def begin(self, scale: Tensor, zero_point: Tensor) -> None:
        """Learn from here on."""
        self.scale.begin(scale)
        self.zero.copy_(zero_point)

    def observed(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point by the range that was seen."""
        return super().scale_and_zero_point()

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        return self.scale.value(), self.zero

    def forward(self, x: Tensor) -> Tensor:
        if not self.rounding:
            return super().forward(x)
        scale = self.scale.learning(count=max(1, x[0].numel()), highest=self.limits[1])
        return rounded(x, scale, self.zero, self.limits)


class LearnedLayer(RoundedLayer):
    """A layer whose weights' scales are learned, one for each output channel. N is the weights of a channel."""

    def __init__(self, layer: nn.Module, norm: nn.Module | None, *, weight_limit: int) -> None:
        super().__init__(layer, norm, weight_limit=weight_limit)
        self.scale = LearnedScale((len(self.layer.weight),))

    def observed(self, weight: Tensor) -> Tensor:
        """The scales by the largest weight of each channel."""
        return super().weight_scale(weight)

    def weight_scale(self, weight: Tensor) -> Tensor:
        return self.scale.value()

    def round_weight(self, weight: Tensor) -> Tensor:
        if not self.rounding:
            return weight
        scale = self.scale.learning(count=weight[0].numel(), highest=self.weight_limit)
        zeros = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
        return rounded(weight, scale, zeros, (-self.weight_limit, self.weight_limit))


class _Rounded(torch.autograd.Function):
    """Round to a grid and come back, with LSQ's gradients, equations 2, 3 and 5 of the paper.

    v = x / s: of s, round(v) - v inside the grid, its end outside; of x, 1 inside and 0 outside.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.limits = (low, high)
        if scale.ndim:
            return torch.fake_quantize_per_channel_affine(x, scale, zero_point, 0, low, high)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero_point = ctx.saved_tensors
        wide = (-1, *[1] * (x.ndim - 1)) if scale.ndim else ()
        low, high = (limit - zero_point.view(wide) for limit in ctx.limits)
        ratio = x / scale.view(wide)
        inside = (ratio > low) & (ratio < high)
        slope = ratio.round().clamp(low, high) - ratio * inside
        to_scale = grads[0] * slope
        shared = to_scale.flatten(start_dim=1).sum(dim=1) if scale.ndim else to_scale.sum()
        return grads[0] * inside, shared, None, None, None


def rounded(x: Tensor, scale: Tensor, zero_point: Tensor, limits: tuple[int, int]) -> Tensor:
    """x on its grid; one scale for all of it, or one for each place of the first dimension. Gradients: as LSQ."""
    out: Tensor = _Rounded.apply(x, scale, zero_point, *limits)  # type: ignore[no-untyped-call]
    return out


def scales(module: nn.Module) -> list[LearnedScale]:
    """Every scale that learns."""
    return [part for part in module.modules() if isinstance(part, LearnedScale)]


@torch.no_grad()
def learn_(module: nn.Module, batches: Sequence[Tensor]) -> None:
    """Make parameters of all scales of a calibrated network, and set them to where they begin.

    The paper begins at 2 mean|v| / sqrt(Q_p), of weights, and of the first batch of an activation. That suits a few
    bits: at 8 it is five times what a bell curve needs. So it is taken where it rounds with a smaller squared error
    than the calibrated scale.
    """
    for name, part in list(module.named_modules()):
        if type(part) is ActivationRounding:
            module.set_submodule(name, _alike(part, LearnedRounding(part.grid)))
        elif type(part) is RoundedLayer:
            learned = _alike(part, LearnedLayer(part.layer, part.norm, weight_limit=part.weight_limit))
            learned.scale.begin(_better_of_weights(learned, learned.folded()[0]))
            module.set_submodule(name, learned)
    places = [part for part in module.eval().modules() if isinstance(part, LearnedRounding)]
    before = [part.rounding for part in places]
    trials = [_Trial(part) for part in places]
    for part in places:
        part.rounding = False
    for batch in batches:
        module(batch)
    for trial, was in zip(trials, before, strict=True):
        trial.end()
        trial.place.rounding = was


def _alike(part: nn.Module, learned: Learned) -> Learned:
    """The learned form with the state of the plain one: its range, and what it is told to do."""
    learned.load_state_dict(part.state_dict(), strict=False)
    vars(learned).update({name: value for name, value in vars(part).items() if not name.startswith("_")})
    return learned


def first_scale(x: Tensor, *, highest: int) -> Tensor:
    """Where the paper begins; of each place of the first dimension where x has one row for each channel."""
    return 2 * x.abs().mean(dim=-1) / math.sqrt(highest)


def _better_of_weights(layer: LearnedLayer, weight: Tensor) -> Tensor:
    rows = weight.flatten(start_dim=1)
    seen = layer.observed(weight)
    papers = first_scale(rows, highest=layer.weight_limit).clamp(min=SMALLEST_SCALE)
    errors = []
    for scale in (seen, papers):
        near = (rows / scale[:, None]).round().clamp(-layer.weight_limit, layer.weight_limit) * scale[:, None]
        errors.append((near - rows).square().sum(dim=1))
    return torch.where(errors[1] < errors[0], papers, seen)


class _Trial:
    """Which of two scales suits an activation, by what it shows."""

    def __init__(self, place: LearnedRounding) -> None:
        self.place = place
        self.seen, self.zero = place.observed()
        self.papers: Tensor | None = None  # a zero point belongs to the range that was seen
        self.errors = [0.0, 0.0]
        self._is_first = True
        self._handle = place.register_forward_pre_hook(self._look)

    def _look(self, _place: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0]
        if self._is_first and self.place.grid != "affine":
            self.papers = first_scale(x.flatten(), highest=self.place.limits[1]).clamp(min=SMALLEST_SCALE)
        self._is_first = False
        if self.papers is None:
            return
        for number, scale in enumerate((self.seen, self.papers)):
            near = torch.fake_quantize_per_tensor_affine(x, scale, self.zero, *self.place.limits)
            self.errors[number] += float((near - x).square().sum())

    def end(self) -> None:
        """Begin with the better one."""
        self._handle.remove()
        best = self.seen
        if self.papers is not None and self.errors[1] < self.errors[0]:
            best = self.papers
        if float(best) <= SMALLEST_SCALE:  # nothing came by, and what may come later must not be a billion steps
            best = torch.full_like(best, 1 / self.place.limits[1])
        self.place.begin(best, self.zero)
