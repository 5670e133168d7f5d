"""What the losses of an epoch came to, fetched from the device every few rounds; stops what is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..targets.errors import StageError
from .crew import Crew


@dataclass(frozen=True)
class _Entry:
    """One player's losses at one step. names: of `values`; the first value is the total."""

    place: str
    names: tuple[str, ...]
    values: Tensor
    samples: int


@dataclass(kw_only=True)
class Ledger:
    """The losses of one training. last: each one's last finite value, in words, for the message when it has none."""

    crew: Crew
    last: dict[str, str] = field(default_factory=dict)
    _open: list[_Entry] = field(default_factory=list)
    _sums: dict[str, float] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def note(self, total: Tensor, values: Mapping[str, Tensor], *, samples: int, epoch: int, index: int) -> None:
        """Write down what a step cost. It stays on the device: fetching each number would wait for it."""
        stacked = torch.stack([one.detach().reshape(()).float() for one in (total, *values.values())])
        self._open.append(_Entry(f"epoch {epoch + 1}, batch {index + 1}", tuple(values), stacked, samples))

    def settle(self, *, alone: bool = False) -> None:
        """Fetch what was written down. alone: what this process knows, without asking the others.

        StageError: a loss is not finite; which one, since when, and what it was before.
        """
        entries, self._open = self._open, []
        if not entries:
            return
        values = torch.cat([entry.values for entry in entries])
        if not alone and self.crew.count > 1:
            weights = torch.cat([entry.values.new_full(entry.values.shape, entry.samples) for entry in entries])
            values = self.crew.mean(values * weights, weight=1.0) / self.crew.mean(weights, weight=1.0)
        fetched = iter(values.tolist())
        for entry in entries:
            total, *found = (next(fetched) for _ in range(1 + len(entry.names)))
            if not math.isfinite(total):
                self._refuse(entry, found)
            for name, value in zip(entry.names, found, strict=True):
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1
                self.last[name] = f"{value:.4g} at {entry.place}"

    def means(self) -> dict[str, float]:
        """Each loss on average over the epoch so far."""
        return {name: self._sums[name] / self._counts[name] for name in self._sums}

    def close(self) -> dict[str, float]:
        """The same, and the next epoch starts from nothing."""
        means = self.means()
        self._sums, self._counts = {}, {}
        return means

    def _refuse(self, entry: _Entry, found: list[float]) -> None:
        bad = {name: value for name, value in zip(entry.names, found, strict=True) if not math.isfinite(value)}
        words = [
            f"{name} is {value} at {entry.place}; before it was {self.last.get(name, 'never looked at')}"
            for name, value in bad.items()
        ] or [f"each of {', '.join(entry.names)} is finite and their weighted sum is not, at {entry.place}"]
        raise StageError(
            f"the loss is not finite: {'. '.join(words)}. "
            "The state after the last whole epoch is kept. Try a learning rate ten times smaller, and look for "
            "images that are not finite after normalisation (a std of 0)."
        )
