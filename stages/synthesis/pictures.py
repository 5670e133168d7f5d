"""What images look like, whatever a network says of them: smooth, and not too bright."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ...targets.errors import StageError
from ..distill.nouns import Step
from ..distill.response import one_of
from .terms import Prior

Length = Literal["l1", "l2"]


class TotalVariation(Prior):
    """sum over d of |x - x moved by d|, d one pixel to the right, down, and along both diagonals: be smooth.

    Mahendran & Vedaldi, 2015 (arXiv:1412.0035), in the form of DeepInversion (Yin et al., 2020, arXiv:1912.08795). `l1`
    is the mean of absolute differences. `l2` is the L2 norm of all differences of an image, averaged over images; the
    reference takes the norm over the batch, which is sqrt(batch) times as much, so that its weight of 2.5e-5 for 256
    images of CIFAR is 4e-4 here.
    """

    def __init__(self, *, kind: Length = "l2") -> None:
        super().__init__()
        one_of(kind, get_args(Length), option="kind")
        self.kind = kind

    def build(self, probe: Step) -> None:
        if probe.batch.x.ndim != 4:
            raise StageError("it looks at neighbouring pixels, and these samples are no images")

    def forward(self, step: Step) -> Tensor:
        x = step.batch.x
        moved = (
            x[:, :, :, 1:] - x[:, :, :, :-1],
            x[:, :, 1:, :] - x[:, :, :-1, :],
            x[:, :, 1:, :-1] - x[:, :, :-1, 1:],
            x[:, :, 1:, 1:] - x[:, :, :-1, :-1],
        )
        if self.kind == "l1":
            return torch.stack([one.abs().mean() for one in moved]).sum()
        return torch.stack([torch.linalg.vector_norm(one, dim=(1, 2, 3)).mean() for one in moved]).sum()


class Norm(Prior):
    """The L2 norm of each normalised image, averaged over images: stay near the mean colour.

    DeepInversion, Yin et al., 2020 (arXiv:1912.08795), whose weight is 0 on CIFAR and 1e-5 on ImageNet.
    """

    def forward(self, step: Step) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(step.batch.x.flatten(1), dim=1)
        return length.mean()
