"""Losses that transform the student's maps before comparing them: fused with deeper ones, filtered by frequency."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .adapters import as_map, met
from .nouns import Need, Step, Term
from .pairing import OverPairs

MIDDLE = 512  # channels at most in which stages are fused
LEVELS = (4, 2, 1)  # cells on a side to which maps are averaged, besides their own size
FILTER_LIMIT = 2**26  # complex numbers of one frequency filter: half a gigabyte
CUT_ON = 0.1  # share of the spectrum around frequency 0 that a high-pass filter takes away


class KnowledgeReview(Term):
    """HCL of fused features: each stage of the student, joined with all deeper ones, against the teacher's.

    Chen et al., 2021 (arXiv:2104.09044), ReviewKD. From the deep end: x = B(C1 F_s); x = a x + b (fused so far, made
    larger), a and b one map each, sigmoid of a 1x1 convolution of both; the answer is B(C3 x) of the teacher's width.
    HCL: mean squared difference at full size and averaged to 4, 2 and 1 cells, weights 1, 1/2, 1/4, 1/8, divided by
    their sum; summed over stages. Here stages are maps only; the authors also give the pooled vector as the deepest.
    Usual weight: 1 to 8 by network, growing over the first 20 epochs (ramp: 20).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@stages"

    def build(self, probe: Step) -> None:
        pairs = [(as_map(mine), as_map(theirs)) for mine, theirs in probe.pairs(self.pairs)]
        middle = min(MIDDLE, pairs[-1][0].shape[1])
        self.narrow = nn.ModuleList(_convolved(mine.shape[1], middle, 1) for mine, _ in pairs)
        self.widen = nn.ModuleList(_convolved(middle, theirs.shape[1], 3) for _, theirs in pairs)
        self.weigh = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) for _ in pairs[1:]
        )  # the deepest has nothing to be fused with

    def forward(self, step: Step) -> Tensor:
        pairs = [(as_map(mine), as_map(theirs.detach())) for mine, theirs in step.pairs(self.pairs)]
        values: list[Tensor] = []
        fused: Tensor | None = None
        for index in reversed(range(len(pairs))):
            mine, theirs = pairs[index]
            here: Tensor = self.narrow[index](mine)
            if fused is not None:
                deeper = F.interpolate(fused, here.shape[2:], mode="nearest")
                shares = self.weigh[index](torch.cat([here, deeper], dim=1))
                here = here * shares[:, :1] + deeper * shares[:, 1:]
            fused = here
            if here.shape[2:] != theirs.shape[2:]:
                here = F.interpolate(here, theirs.shape[2:], mode="nearest")
            values.append(hierarchical(self.widen[index](here), theirs))
        return torch.stack(values).sum()


class FrequencyAttention(OverPairs):
    """mean((n(r1 IFFT(K FFT(F_s)) + r2 C1 F_s) - F_t)^2) over stages, K a learned complex filter, C1 a 1x1 convolution.

    Pham et al., 2024 (WACV), FAM-KD: the student's map is filtered in the frequency domain, where every filter looks at
    the whole image. r1 and r2 are learned and begin at 0.5; n is batch norm. The lowest tenth of the spectrum is taken
    away (high pass). On maps under 20 pixels that tenth is no frequency at all, so it is not done there. Without the
    authors' attention between stages, and without a ReLU after n, as a teacher's map may be negative: our choices.
    Usual weight: 0.8, growing over the first epochs (ramp).
    """

    def build(self, probe: Step) -> None:
        self.filters, self.beside, self.norms = nn.ParameterList(), nn.ModuleList(), nn.ModuleList()
        self.rates = nn.ParameterList()
        for mine, theirs in probe.pairs(self.pairs):
            shape, wide = met(mine.shape[1:], theirs.shape[1:])
            if len(shape) != 3:
                raise StageError(f"it filters maps, and these are features of shape {shape}: use taps with maps")
            size = shape[0] * wide * shape[1] * shape[2]
            if size > FILTER_LIMIT:
                raise StageError(f"a filter for maps of {shape} needs {size:,} complex numbers: tap smaller maps")
            self.filters.append(nn.Parameter(torch.rand(shape[0], wide, *shape[1:], 2) / (shape[0] * wide)))
            self.beside.append(nn.Conv2d(shape[0], wide, 1))
            self.norms.append(nn.BatchNorm2d(wide))
            self.rates.append(nn.Parameter(torch.full((2,), 0.5)))

    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        weights = torch.view_as_complex(self.filters[index])
        spectrum = torch.einsum("bchw,cohw->bohw", torch.fft.fft2(student, norm="ortho"), weights)
        filtered = torch.fft.ifft2(high_pass(spectrum), norm="ortho").real
        rates = self.rates[index]
        joined = rates[0] * filtered + rates[1] * self.beside[index](student)
        return F.mse_loss(self.norms[index](joined), teacher)


def hierarchical(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL: the mean squared difference at several sizes, each counting half as much as the one before."""
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for cells in LEVELS:
        if cells < min(student.shape[2:]):
            weight /= 2
            weights += weight
            coarse = [F.adaptive_avg_pool2d(one, cells) for one in (student, teacher)]
            total = total + weight * F.mse_loss(coarse[0], coarse[1])
    return total / weights


def high_pass(spectrum: Tensor) -> Tensor:
    """The spectrum, of fft2, without its lowest frequencies; the same where the map is too small to have a tenth."""
    height, width = spectrum.shape[2:]
    high, wide = (int(CUT_ON * (side // 2)) for side in (height, width))
    if high == 0 or wide == 0:
        return spectrum
    kept = torch.ones(height, width, device=spectrum.device)
    middle = height // 2, width // 2
    kept[middle[0] - high : middle[0] + high, middle[1] - wide : middle[1] + wide] = 0
    passed: Tensor = torch.fft.ifftshift(kept)
    return spectrum * passed


def _convolved(inputs: int, outputs: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
