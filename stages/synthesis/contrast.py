"""Made images that differ from each other, and from those that were made before."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ..distill.nouns import Need, Out, Step
from ..distill.response import above_zero
from .terms import Prior

MOST_BYTES = 256 * 2**20  # of the memory of what was made before; wide teachers remember fewer images


class Contrast(Prior):
    """-log(exp(v_i . u_i / tau) / sum_j exp(v_i . u_j / tau)), u and v of two variations of an image, of length 1.

    Fang et al., 2021 (arXiv:2105.08584), CMI. u = h(f(x)) and v = h(f(x')), f the means over positions of what the
    teacher's batch norms are given, one after the other, and h a perceptron with one hidden layer that learns with the
    generator; u gets no gradient. j runs over the batch and over `negatives` images out of a memory of those that were
    kept; the mean over those of the memory, which teaches h alone, is added to the mean over the batch. x is the
    batch and x' its second view: in the reference a crop of a quarter to the whole, enlarged, and flipped.

    bank: images that are remembered, at most, and no more than 256 MiB of them. Usual weight: 0.8; temperature 0.1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "view"})
    place: ClassVar[str | None] = "@norms"
    of_teacher: ClassVar[bool] = True

    bank: Tensor
    written: Tensor

    def __init__(
        self, *, temperature: float = 0.1, bank: int = 40_960, negatives: int = 4_096, width: int = 128
    ) -> None:
        super().__init__()
        above_zero(temperature=temperature, bank=bank, negatives=negatives, width=width)
        self.temperature, self.size, self.negatives, self.width = temperature, bank, negatives, width
        self._last: Tensor | None = None

    def build(self, probe: Step) -> None:
        features = _features(probe.teacher(), self.pairs).shape[1]
        self.size = max(1, min(self.size, MOST_BYTES // (2 * features * 4)))
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, self.width))
        self.register_buffer("bank", torch.zeros(0, 2 * features))
        self.register_buffer("written", torch.tensor(0))

    def forward(self, step: Step) -> Tensor:
        said = step.teacher()
        if said.view is None:
            raise StageError("the contrast compares two views, and the teacher was shown one: a Through shows it both")
        whole, part = _features(said, self.pairs), _features(said.view, self.pairs)
        self._last = torch.cat([whole, part], dim=1).detach()
        kept_whole, kept_part = self._drawn().chunk(2, dim=1)
        u = F.normalize(self.head(torch.cat([whole, kept_whole])), dim=1).detach()
        v = F.normalize(self.head(torch.cat([part, kept_part])), dim=1)
        each = F.cross_entropy(v @ u.T / self.temperature, torch.arange(len(v), device=v.device), reduction="none")
        now, before = each[: len(whole)], each[len(whole) :]
        return now.mean() + before.mean() if len(before) else now.mean()

    @torch.no_grad()
    def remember(self) -> None:
        """The last batch is kept; the images of longest ago make room."""
        assert self._last is not None, "no batch was seen"
        new = self._last[-self.size :]
        grown = torch.cat([self.bank, new])
        self.bank = grown[-self.size :]
        self.written += len(new)

    def _drawn(self) -> Tensor:
        """So many of those that were kept, by lot."""
        if len(self.bank) <= self.negatives:
            return self.bank
        return self.bank[torch.randperm(len(self.bank))[: self.negatives].to(self.bank.device)]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}bank")
        if saved is not None and len(saved) != len(self.bank):
            self.bank = self.bank.new_zeros(len(saved), self.bank.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _features(said: Out, pairs: tuple[tuple[str, str], ...]) -> Tensor:
    """(batch, channels of all layers): the mean over positions of what passes each tap."""
    return torch.cat(
        [said.feats[tap].flatten(2).mean(dim=2) if said.feats[tap].ndim > 2 else said.feats[tap] for _, tap in pairs],
        dim=1,
    )
