"""Which range of an activation the integers should cover: four ways to tell, by what was observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from .layers import ActivationRounding
from .learned import begin_
from .prepare import roundings
from .switching import set_rounding_

Estimator = Literal["min-max", "percentile", "mse", "kl"]
Range = tuple[float, float]

SAMPLES = 32_768  # values that are kept of each tensor: beyond it the ranges do not move
TAIL = 1e-4  # of the values, on each side, that `percentile` gives up
SHARES = torch.linspace(0.3, 1.0, 36).tolist()  # of the full range, that `mse` tries
BINS = 2048  # of the histogram that `kl` compares
STEP = 32  # bins between two thresholds that it tries


def calibrate_(module: nn.Module, batches: Iterable[Tensor], estimator: Estimator = "min-max") -> None:
    """Set the range of every rounded activation of a prepared network by what it sees in these batches.

    Scales that learn begin there.
    """
    batches = list(batches)
    set_ranges_(keep_values(module.eval(), batches), estimator)
    set_rounding_(module, False)
    begin_(module, batches)
    set_rounding_(module, True)


def keep_values(module: nn.Module, batches: Iterable[Tensor], *, seed: int = 0) -> dict[ActivationRounding, Tensor]:
    """Values of every rounded tensor of a prepared network, its extremes among them; nothing is rounded meanwhile."""
    batches = list(batches)
    each = max(1, SAMPLES // max(1, len(batches)))
    generator = torch.Generator().manual_seed(seed)
    found: dict[ActivationRounding, list[Tensor]] = {part: [] for part in roundings(module)}

    def keep(part: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(part, ActivationRounding)
        values = given[0].detach().flatten()
        places = torch.randint(len(values), (min(each, len(values)),), generator=generator)
        found[part] += [values[places], torch.stack(torch.aminmax(values))]

    handles = [part.register_forward_pre_hook(keep) for part in found]
    set_rounding_(module, False)
    with torch.no_grad():
        for batch in batches:
            module(batch)
    for handle in handles:
        handle.remove()
    set_rounding_(module, True)
    return {part: torch.cat(values) for part, values in found.items() if values}


def set_ranges_(values: Mapping[ActivationRounding, Tensor], estimator: Estimator) -> None:
    """Fix the range of every rounding. min-max: the whole of what was seen."""
    choose = ESTIMATORS[estimator]
    for part, seen in values.items():
        low, high = choose(part, seen)
        part.low.fill_(low)
        part.high.fill_(high)


def _min_max(_part: ActivationRounding, values: Tensor) -> Range:
    return float(values.min()), float(values.max())


def _percentile(_part: ActivationRounding, values: Tensor) -> Range:
    ordered = values.sort().values
    cut = max(1, round(TAIL * len(ordered)))
    return float(ordered[cut]), float(ordered[-1 - cut])


def _mse(part: ActivationRounding, values: Tensor) -> Range:
    """The share of the full range at which rounding and clipping together change the values least."""
    low, high = _min_max(part, values)
    kept = part.low.clone(), part.high.clone()
    errors = []
    for share in SHARES:
        part.low.fill_(share * low)
        part.high.fill_(share * high)
        scale, zero_point = part.scale_and_zero_point()
        rounded = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, *part.limits)
        errors.append(float((rounded - values).square().mean()))
    part.low.copy_(kept[0])
    part.high.copy_(kept[1])
    best = SHARES[min(range(len(SHARES)), key=errors.__getitem__)]
    return best * low, best * high


def _kl(part: ActivationRounding, values: Tensor) -> Range:
    """The threshold whose integers tell most of the distribution (Migacz, 2017, "8-bit Inference with TensorRT").

    Half as many levels where the grid is signed: the histogram is of absolute values.
    """
    low, high = _min_max(part, values)
    largest = max(-low, high)
    if largest <= 0:
        return low, high
    levels = 255 if part.grid == "unsigned" else 128
    counts = torch.histc(values.abs(), bins=BINS, min=0.0, max=largest)
    counts[0] = counts[1]  # what a ReLU made zero is exact on every grid, and would outweigh all the rest
    best, least = BINS, float("inf")
    for stop in range(levels, BINS + 1, STEP):
        wanted = counts[:stop].clone()
        wanted[-1] += counts[stop:].sum()
        told = _through_levels(counts[:stop], levels)
        error = _divergence(wanted, told)
        if error < least:
            best, least = stop, error
    threshold = largest * best / BINS
    return max(low, -threshold), min(high, threshold)


def _through_levels(counts: Tensor, levels: int) -> Tensor:
    """The same histogram when every level only knows how much fell on it: spread over its bins that are not empty."""
    level = (torch.arange(len(counts)) * levels // len(counts)).clamp(max=levels - 1)
    filled = (counts > 0).float()
    mass = torch.zeros(levels).index_add_(0, level, counts)
    places = torch.zeros(levels).index_add_(0, level, filled).clamp(min=1.0)
    return filled * (mass / places)[level]


def _divergence(wanted: Tensor, told: Tensor) -> float:
    wanted, told = wanted / wanted.sum(), told / told.sum().clamp(min=1e-12)
    there = wanted > 0
    return float((wanted[there] * (wanted[there] / told[there].clamp(min=1e-12)).log()).sum())


ESTIMATORS: dict[Estimator, Callable[[ActivationRounding, Tensor], Range]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "mse": _mse,
    "kl": _kl,
}
