"""Where teachers' answers and training samples come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .nouns import Batch, Out, Player


class Frozen:
    """A network that answers and never learns: in eval mode, without gradients, whatever the student does."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()

    def see(self, batch: Batch) -> Out:
        with torch.no_grad():
            return Out(logits=self.module(batch.x).float())

    def to(self, device: torch.device) -> None:
        self.module.to(device)

    def after(self, epoch: int) -> None: ...


class Loaded:
    """Batches of a data set, in an order that depends on the seed and the epoch alone."""

    def __init__(
        self,
        open_epoch: Callable[[int], tuple[int, Iterator[tuple[Tensor, Tensor, Tensor]]]],
        *,
        prepare: Callable[[Tensor, int, int], Tensor],
        device: torch.device,
    ) -> None:
        """open_epoch: epoch -> (batches, iterator over (images, labels, indices)).

        prepare: (images, epoch, round) -> what the network takes: augmented and normalised.
        """
        self.open_epoch, self.prepare, self.device = open_epoch, prepare, device

    def begin(self, epoch: int) -> int:
        rounds, self._batches = self.open_epoch(epoch)
        self._epoch, self._round = epoch, 0
        return rounds

    def next(self, player: Player) -> Batch:
        images, labels, index = next(self._batches)
        x = self.prepare(images.to(self.device), self._epoch, self._round)
        self._round += 1
        return Batch(x=x, y=labels.to(self.device), index=index)
