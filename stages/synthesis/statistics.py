"""How far made images are from the data that a teacher's batch norms remember."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ..distill.nouns import Need, Step
from ..distill.response import one_of
from ..distill.watching import Place, bare
from .terms import Prior

How = Literal["norms", "mse", "std"]


class BatchNormStatistics(Prior):
    """sum over layers l of |mu_l(x) - mu_l| + |var_l(x) - var_l|, L2 norms over channels.

    mu_l(x), var_l(x): mean and variance of what the teacher's batch norm l is given, over the batch and all positions;
    mu_l, var_l: those that it has kept of its data. The batch norms answer by what they kept, in eval mode.

    kind: `norms` as above, DeepInversion (Yin et al., 2020, arXiv:1912.08795), usual weight 10 (CMI 1, FastDFKD and
    NAYER 10). `mse` is the mean over layers of the squared differences, averaged over channels, GDFQ (Xu et al., 2020,
    arXiv:2003.03603), weight 0.1. `std` is the sum over layers of such means, of mean and standard deviation, ZeroQ
    (Cai et al., 2020, arXiv:2001.00281), weight 1; of the batch here, since images that all have the statistics of the
    data are all alike. inputs: the images too, normalised, should have mean 0 and variance 1 (ZeroQ). first: how much
    the first layer counts (DeepInversion on ImageNet: 10). momentum: how much of the statistics are those of the images
    that were kept before, so that each batch may have a little of the data instead of a little of everything
    (FastDFKD, Fang et al., 2022, arXiv:2112.06253: 0.9).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "models"})
    place: ClassVar[str | None] = "@norms"
    of_teacher: ClassVar[bool] = True

    has_kept: Tensor

    def __init__(self, *, kind: How = "norms", inputs: bool = False, first: float = 1.0, momentum: float = 0.0) -> None:
        super().__init__()
        one_of(kind, get_args(How), option="kind")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; it is at least 0 and less than 1")
        self.kind, self.inputs, self.first, self.momentum = kind, inputs, first, momentum
        self._last: list[tuple[Tensor, Tensor]] = []

    def build(self, probe: Step) -> None:
        self.pairs = tuple(pair for pair in self.pairs if _kept(probe, pair[1]) is not None)
        if not self.pairs:
            raise StageError(
                "none of the teacher's batch norms keeps statistics of its data. Take the method dafl or dfq: "
                "they need none"
            )
        self.register_buffer("has_kept", torch.tensor(False))
        for place, (mean, var) in enumerate(self._seen(probe)):
            self.register_buffer(f"mean{place}", torch.zeros_like(mean))
            self.register_buffer(f"var{place}", torch.zeros_like(var))

    def forward(self, step: Step) -> Tensor:
        seen = self._seen(step)
        self._last = [(mean.detach(), var.detach()) for mean, var in seen]
        values = []
        for place, ((mean, var), wanted) in enumerate(zip(self._mixed(seen), self._wanted(step), strict=True)):
            value = _apart(mean, var, wanted, self.kind)
            values.append(self.first * value if place == 0 else value)
        together = torch.stack(values)
        return together.mean() if self.kind == "mse" else together.sum()

    @torch.no_grad()
    def remember(self) -> None:
        """The last batch is kept: its statistics count in those of the next."""
        for place, (mean, var) in enumerate(self._mixed(self._last)):
            getattr(self, f"mean{place}").copy_(mean)
            getattr(self, f"var{place}").copy_(var)
        self.has_kept.fill_(True)

    def _seen(self, step: Step) -> list[tuple[Tensor, Tensor]]:
        """Mean and variance for each channel of each layer, and of the images where they are to be like data."""
        feats = step.teacher().feats
        given = [feats[tap] for _, tap in self.pairs]
        return [_of_channels(one) for one in (*given, *([step.batch.x] if self.inputs else []))]

    def _mixed(self, seen: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """A batch's statistics, with those of images that were kept before."""
        share = self.momentum if self.momentum and bool(self.has_kept) else 0.0
        for place, (mean, var) in enumerate(seen):
            if share:
                mean = (1 - share) * mean + share * getattr(self, f"mean{place}")  # noqa: PLW2901
                var = (1 - share) * var + share * getattr(self, f"var{place}")  # noqa: PLW2901
            yield mean, var

    def _wanted(self, step: Step) -> Iterator[tuple[Tensor, Tensor, float]]:
        for _, tap in self.pairs:
            kept = _kept(step, tap)
            assert kept is not None, "build left out the norms that keep nothing"
            yield kept
        if self.inputs:
            channels = step.batch.x.shape[1]
            yield step.batch.x.new_zeros(channels), step.batch.x.new_ones(channels), 0.0


def _of_channels(given: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over everything but the channels, (batch, channels, ...)."""
    var, mean = torch.var_mean(given, dim=[0, *range(2, given.ndim)], correction=0)
    return mean, var


def _kept(step: Step, tap: str) -> tuple[Tensor, Tensor, float] | None:
    """Mean and variance that the teacher's batch norm has kept, and its eps."""
    module = step.models[next(iter(step.teachers))]
    norm: nn.Module = bare(module).get_submodule(Place.of(tap).module)
    mean, var = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        return None
    return mean.detach().float(), var.detach().float(), float(getattr(norm, "eps", 0.0))


def _apart(mean: Tensor, var: Tensor, wanted: tuple[Tensor, Tensor, float], kind: How) -> Tensor:
    kept_mean, kept_var, eps = wanted
    if kind == "norms":
        apart: Tensor = torch.linalg.vector_norm(mean - kept_mean) + torch.linalg.vector_norm(var - kept_var)
        return apart
    if kind == "mse":
        return F.mse_loss(mean, kept_mean) + F.mse_loss(var, kept_var)
    tiny = max(eps, torch.finfo(var.dtype).tiny)  # a channel that says nothing has a root with a finite gradient
    return F.mse_loss(mean, kept_mean) + F.mse_loss((var + tiny).sqrt(), (kept_var + tiny).sqrt())
