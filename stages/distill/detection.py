"""Losses of object detectors: where the borders of a box lie, and what is in front."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ..tasks import IGNORED
from .adapters import adapter, as_map, meet
from .dense import labels_at
from .nouns import Need, Step, Term
from .response import above_zero, average, each_divergence


class Localisation(Term):
    """T^2 KL(p_t || p_s) of each border's distribution over `bins` distances, averaged over borders and positions.

    LD: Zheng et al., 2022 (arXiv:2102.12252), for detectors that tell each of the four borders of a box as a
    distribution (generalised focal loss). T 10 as published; its weight of 0.25 belongs to a mean over bins, that is to
    0.25 / 17 of this sum. From the answers, or from the tap of the head that tells the borders: (batch, ..., bins), or
    with borders x bins along the channels or at the end. Positions outside the mask, (batch, positions) or (batch,
    height, width), do not count: give those of the objects, and of their surroundings if these should teach too.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def __init__(self, *, bins: int = 17, temperature: float = 10.0, borders: int = 4) -> None:
        super().__init__()
        above_zero(temperature=temperature, bins=bins, borders=borders)
        self.bins, self.temperature, self.borders = bins, temperature, borders

    def build(self, probe: Step) -> None:
        for pair in self._pairs(probe):
            mine, theirs = (self.distributions(said) for said in pair)
            if mine.shape != theirs.shape:
                raise StageError(
                    f"the student tells {tuple(mine.shape[1:])} positions x borders x bins and the teacher "
                    f"{tuple(theirs.shape[1:])}: ld compares detectors with the same anchors and bins"
                )
            self._mask(probe, mine)

    def forward(self, step: Step) -> Tensor:
        values = []
        for pair in self._pairs(step):
            mine, theirs = (self.distributions(said) for said in pair)
            each = each_divergence(mine, theirs, temperature=self.temperature)
            mask = self._mask(step, mine)
            values.append(average(each if mask is None else each[mask]))
        return torch.stack(values).sum()

    def distributions(self, said: Tensor) -> Tensor:
        """(batch, positions, borders, bins). StageError: there are no bins in this shape."""
        wide = self.borders * self.bins
        if said.ndim > 2 and said.shape[-1] == self.bins:
            grouped = said.ndim > 3 and said.shape[-2] == self.borders
            return said.flatten(1, -3) if grouped else said.flatten(1, -2).unsqueeze(2)
        if said.ndim in (3, 4) and said.shape[1] == wide:
            return said.reshape(len(said), self.borders, self.bins, -1).movedim(3, 1)
        if said.ndim == 3 and said.shape[2] == wide:
            return said.reshape(*said.shape[:2], self.borders, self.bins)
        raise StageError(
            f"ld looks for {self.bins} bins or {self.borders} x {self.bins} channels in {tuple(said.shape)}: tap the "
            "head that tells the borders, or set bins and borders"
        )

    def _pairs(self, step: Step) -> list[tuple[Tensor, Tensor]]:
        return list(step.pairs(self.pairs)) if self.pairs else [(step.student.logits, step.teacher().logits)]

    @staticmethod
    def _mask(step: Step, distributions: Tensor) -> Tensor | None:
        if step.batch.mask is None:
            return None
        mask = step.batch.mask.flatten(1).bool()
        if mask.shape != distributions.shape[:2]:
            raise StageError(
                f"the mask has {mask.shape[1]} positions for each image and the detector {distributions.shape[1]}: "
                "ld needs one for each position that tells borders"
            )
        return mask


def attentions(features: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Where and in which channels the features are strong: (batch, height, width) and (batch, channels), mean 1."""
    strong = features.abs()
    where = (strong.mean(dim=1).flatten(1) / temperature).softmax(dim=1) * strong[0, 0].numel()
    which = (strong.mean(dim=(2, 3)) / temperature).softmax(dim=1) * strong.shape[1]
    return where.view(len(features), *features.shape[2:]), which


class GlobalContext(nn.Module):
    """Adds to every place what a learned look at the whole map makes of it; it begins by adding nothing.

    Cao et al., 2019 (arXiv:1904.11492), as focal and global distillation uses it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = max(1, channels // 2)
        self.look = nn.Conv2d(channels, 1, 1)
        last = nn.Linear(middle, channels)
        self.say = nn.Sequential(nn.Linear(channels, middle), nn.LayerNorm(middle), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        looked = self.look(features).flatten(2).softmax(dim=2)
        context = (features.flatten(2) @ looked.transpose(1, 2)).squeeze(2)
        said: Tensor = self.say(context)
        return features + said[:, :, None, None]


class FocalGlobal(Term):
    """Imitate features where objects are, less so around them, attend to the same places, and relate them alike.

    FGD: Yang et al., 2022 (arXiv:2111.11837): sum of A (F_s - F_t)^2 over the foreground times alpha, over the
    background times beta; gamma |A_s - A_t|, A being the attentions of places and channels at temperature 0.5; and
    relation |R(F_s) - R(F_t)|^2 behind a global context block of either network. The default weights are those of its
    code, for sums over a map. Its foreground is made of boxes, each weighed by its area; a batch here has no boxes: in
    front is what a label map does not call background, or else what the mask marks, and the front of each image counts
    1 in all, and so does its background. Widths that differ are joined by a 1x1 convolution with batch norm.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@stages"

    def __init__(
        self,
        *,
        alpha: float = 1e-3,
        beta: float = 5e-4,
        gamma: float = 1e-3,
        relation: float = 5e-6,
        temperature: float = 0.5,
        background: int = 0,
    ) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        self.alpha, self.beta, self.gamma, self.relation = alpha, beta, gamma, relation
        self.temperature, self.background = temperature, background

    def build(self, probe: Step) -> None:
        self.adapters, self.contexts = nn.ModuleList(), nn.ModuleList()
        for mine, theirs in probe.pairs(self.pairs):
            wide = as_map(meet(mine, theirs)[1]).shape[1]
            self.adapters.append(adapter(mine.shape[1:], theirs.shape[1:]))
            self.contexts.extend([GlobalContext(wide), GlobalContext(wide)])  # the student's, the teacher's
        self.in_front(probe, (1, 1))

    def forward(self, step: Step) -> Tensor:
        values = []
        for place, pair in enumerate(step.pairs(self.pairs)):
            mine, theirs = meet(*pair)
            mine, theirs = as_map(self.adapters[place](mine)), as_map(theirs)
            values.append(self._focal(mine, theirs, step) + self._global(mine, theirs, place))
        return torch.stack(values).sum()

    def _focal(self, mine: Tensor, theirs: Tensor, step: Step) -> Tensor:
        where, which = attentions(theirs, temperature=self.temperature)
        looked, chosen = attentions(mine, temperature=self.temperature)
        gap = ((mine - theirs).square() * which[:, :, None, None]).sum(dim=1) * where
        total = mine.new_zeros(())
        for weight, places in zip((self.alpha, self.beta), self.in_front(step, mine.shape[2:]), strict=True):
            share = places / places.sum(dim=(1, 2), keepdim=True).clamp(min=1)
            total = total + weight * (gap * share).sum(dim=(1, 2)).mean()
        unlike = (looked - where).abs().sum(dim=(1, 2)) + (chosen - which).abs().sum(dim=1)
        return total + self.gamma * unlike.mean()

    def _global(self, mine: Tensor, theirs: Tensor, place: int) -> Tensor:
        gap: Tensor = self.contexts[2 * place](mine) - self.contexts[2 * place + 1](theirs)
        return self.relation * gap.square().flatten(1).sum(dim=1).mean()

    def in_front(self, step: Step, size: tuple[int, ...] | torch.Size) -> tuple[Tensor, Tensor]:
        """(batch, height, width) twice: 1.0 in front, and 1.0 behind. StageError: nothing tells which is which."""
        if step.batch.y is not None and step.batch.y.ndim == 3 and not step.batch.y.is_floating_point():
            labels = labels_at(step, size)
            behind, known = labels == self.background, labels != IGNORED
            return (known & ~behind).float(), behind.float()
        if step.batch.mask is None or step.batch.mask.ndim != 3:
            raise StageError(
                "focal_global needs to know what is in front: labels of pixels, or a mask (batch, height, width)"
            )
        front = F.adaptive_max_pool2d(step.batch.mask.unsqueeze(1).float(), list(size)).squeeze(1)
        return front, 1 - front
