"""End a generator so that its images have the mean and the spread of the data, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch
from torch import Tensor, nn

WIDEST = 0.97  # of the spread that a mean allows: more would be pixels of 0 and 1 alone, through which no gradient goes
POINTS = 400  # at which a normal distribution is looked at, equally likely each
HALVINGS = 60
STEEPEST, FARTHEST = 64.0, 400.0  # gain and shift are looked for up to these


class Spread(nn.Module):
    """Batch norm without scale and shift, then a sigmoid that is so steep and so placed that the pixels fit the data.

    DAFL (Chen et al., 2019, arXiv:1904.01186), DFAD (Fang et al., 2019, arXiv:1912.11006) and ZSKT end in such a batch
    norm, whose answers are taken for normalised pixels, though no picture has all of them. Here a picture can be kept:
    if the batch norm's answers are distributed normally, their sigmoid has the data's mean and spread. A plain sigmoid
    begins with grey images, from which a network that has never seen such tells little.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """mean, std: of the data's pixels, 0 to 1, for each channel."""
        super().__init__()
        self.norm = nn.BatchNorm2d(len(mean), affine=False)
        found = [gain_and_shift(one, other) for one, other in zip(mean, std, strict=True)]
        for place, name in enumerate(("gain", "shift")):
            values = torch.tensor([pair[place] for pair in found]).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.sigmoid(self.norm(maps) * self.gain + self.shift)


def gain_and_shift(mean: float, std: float) -> tuple[float, float]:
    """gain and shift for which sigmoid(gain * n + shift) of a standard normal n has this mean and standard deviation.

    Both by bisection: with the shift the mean rises, and with the gain the spread. A spread that no pixels between 0
    and 1 of that mean can have is taken as the widest that leaves a gradient; means beyond 0 and 1 likewise.
    """
    mean = min(max(mean, 0.01), 0.99)
    std = min(std, WIDEST * math.sqrt(mean * (1 - mean)))
    normal = NormalDist()
    points = torch.tensor([normal.inv_cdf((place + 0.5) / POINTS) for place in range(POINTS)], dtype=torch.float64)

    def shift_for(gain: float) -> float:
        return _bisected(lambda shift: float(torch.sigmoid(gain * points + shift).mean()) < mean, -FARTHEST, FARTHEST)

    def is_too_narrow(gain: float) -> bool:
        return float(torch.sigmoid(gain * points + shift_for(gain)).std(correction=0)) < std

    gain = _bisected(is_too_narrow, 0.0, STEEPEST)
    return gain, shift_for(gain)


def _bisected(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds for small numbers ceases to hold."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
