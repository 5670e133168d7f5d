"""A memory of one vector for each sample of the data, kept between batches and in checkpoints."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ...targets.memory import available_mb

USABLE_SHARE = 0.5  # of the memory that is free: training needs the rest


class Bank(nn.Module):
    """Vectors of length 1 by the index of their sample, and each sample's label, -1 where it is unknown.

    It grows to the largest index that it meets, so that nobody has to count the data. Rows nobody has written are
    random directions.
    """

    rows: Tensor
    labels: Tensor

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("rows", torch.zeros(0, width))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.rows)

    def reserve(self, count: int) -> None:
        """Have a row for the indices below `count`. StageError: they do not fit into memory."""
        more = count - len(self)
        if more <= 0:
            return
        device = self.rows.device
        _refuse_too_large(count, self.width, device)
        rows = F.normalize(torch.randn(more, self.width)).to(device)
        self.rows = torch.cat([self.rows, rows])
        self.labels = torch.cat([self.labels, torch.full((more,), -1, device=device)])

    @torch.no_grad()
    def put(self, index: Tensor, vectors: Tensor, labels: Tensor | None, *, momentum: float) -> None:
        """Move rows towards these vectors: momentum times the old and the rest of the new, scaled to length 1."""
        index = index.to(self.rows.device)
        self.rows[index] = F.normalize(momentum * self.rows[index] + (1 - momentum) * vectors.detach())
        if labels is not None:
            self.labels[index] = labels

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}rows")
        if saved is not None and len(saved) != len(self):
            self.rows = saved.new_zeros(len(saved), self.width).to(self.rows.device)
            self.labels = torch.zeros(len(saved), dtype=torch.long, device=self.rows.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _refuse_too_large(count: int, width: int, device: torch.device) -> None:
    needed_mb = count * width * 4 / 2**20
    if device.type == "cuda":
        free_mb: float | None = torch.cuda.mem_get_info(device)[0] / 2**20
    else:
        free_mb = available_mb()
    if free_mb is not None and needed_mb > USABLE_SHARE * free_mb:
        raise StageError(
            f"a memory of {count} samples x {width} numbers takes {needed_mb:.0f} MiB, and {free_mb:.0f} MiB are free: "
            "give crd a smaller dim, or use crd_inbatch, which needs no memory"
        )
