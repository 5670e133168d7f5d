"""Losses that hide a part of the student's features and have the teacher's made from the rest."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from .adapters import adapter, as_map, channels, met, patches_of
from .nouns import Need, Step, Term
from .pairing import OverPairs

Hidden = Literal["channels", "positions"]


class MaskedGeneration(OverPairs):
    """Sum over elements, mean over the batch of (G(M a(F_s)) - F_t)^2: M hides a share, G is two 3x3 convolutions.

    Yang et al., 2022 (arXiv:2205.01529), MGD. hide: `channels` with a ratio of 0.15 for classification, `positions`
    with 0.65 for detection. a is a 1x1 convolution where the widths differ. Usual weight: 7e-5 (classification) or
    2e-5 (detection).
    """

    place: ClassVar[str | None] = "@map"

    def __init__(self, *, ratio: float = 0.15, hide: Hidden = "channels") -> None:
        super().__init__()
        check_ratio(ratio)
        if hide not in ("channels", "positions"):
            raise ValueError(f"hide is channels or positions, not {hide!r}")
        self.ratio, self.hide = ratio, hide

    def build(self, probe: Step) -> None:
        self.adapters, self.generators = nn.ModuleList(), nn.ModuleList()
        for mine, theirs in probe.pairs(self.pairs):
            shapes = [as_map(one).shape[1:] for one in (mine, theirs)]
            _, wide = met(*shapes)
            self.adapters.append(nn.Identity() if shapes[0][0] == wide else nn.Conv2d(shapes[0][0], wide, 1))
            self.generators.append(generator(wide))

    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        mine: Tensor = self.adapters[index](as_map(student))
        theirs = as_map(teacher)
        batch, wide, *size = mine.shape
        shape = (batch, wide, 1, 1) if self.hide == "channels" else (batch, 1, *size)
        kept = torch.rand(shape, device=mine.device) >= self.ratio
        made: Tensor = self.generators[index](mine * kept)
        total: Tensor = (made - theirs).square().sum()
        return total / batch


class ViTDistillation(Term):
    """a sum over the first blocks of |FC(F_s) - F_t|^2 + b / r |G(M FC(F_s)) - F_t|^2 at what is hidden in the last.

    Yang et al., 2022 (arXiv:2209.02432), ViTKD: shallow blocks are mimicked, the deepest is made from a part of its
    patches; a is 3e-5, b 3e-6, the share r that is hidden 0.5. Squares are summed over elements and averaged over the
    batch. FC is a linear layer where the widths differ, G two 3x3 convolutions, and a learned token stands for what is
    hidden. Class tokens are mimicked and left out of the making. Default place: the first two blocks and the last.
    Usual weight: 1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@edges"

    def __init__(self, *, shallow: float = 3e-5, deep: float = 3e-6, ratio: float = 0.5) -> None:
        super().__init__()
        check_ratio(ratio)
        self.shallow, self.deep, self.ratio = shallow, deep, ratio

    def build(self, probe: Step) -> None:
        pairs = list(probe.pairs(self.pairs))
        self.adapters = nn.ModuleList(adapter(mine.shape[1:], theirs.shape[1:]) for mine, theirs in pairs)
        shape = pairs[-1][1].shape[1:]
        self.token = nn.Parameter(torch.zeros(shape[channels(shape)]))
        self.generator = generator(shape[-1])
        patches_of(shape[0])

    def forward(self, step: Step) -> Tensor:
        pairs = [
            (adapt(mine), theirs.detach())
            for adapt, (mine, theirs) in zip(self.adapters, step.pairs(self.pairs), strict=True)
        ]
        batch = len(pairs[0][0])
        mimicked = torch.stack([(mine - theirs).square().sum() for mine, theirs in pairs[:-1]]).sum()
        mine, theirs = (one[:, -patches_of(one.shape[1]) :] for one in pairs[-1])
        order = torch.rand(mine.shape[:2], device=mine.device).argsort(dim=1)
        hidden = (order >= int(mine.shape[1] * (1 - self.ratio))).unsqueeze(2)
        given = torch.where(hidden, self.token, mine)
        made: Tensor = self.generator(as_map(given)).flatten(2).transpose(1, 2)
        missed: Tensor = ((made - theirs) * hidden).square().sum()
        return (self.shallow * mimicked + self.deep / self.ratio * missed) / batch


def generator(wide: int) -> nn.Sequential:
    """3x3 convolution, ReLU, 3x3 convolution, all of one width."""
    return nn.Sequential(nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU(), nn.Conv2d(wide, wide, 3, padding=1))


def check_ratio(ratio: float) -> None:
    """ValueError: it is no share of what is to be hidden."""
    if not 0 < ratio < 1:
        raise ValueError("ratio is the share that is hidden, between 0 and 1")
