"""Where teachers' answers and training samples come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .nouns import Batch, Out, Player
from .watching import answer

PROBE = 4  # samples: enough for a batch norm and for classes to differ


class Frozen:
    """A network that answers and never learns: in eval mode, without gradients, whatever the student does.

    taps: which features it tells besides its logits; set when the losses are wired.
    """

    def __init__(self, module: nn.Module, *, taps: Sequence[str] = ()) -> None:
        self.module: nn.Module | None = module.eval()
        self._network = module
        self.taps = tuple(taps)

    def see(self, batch: Batch) -> Out:
        x = batch.x if batch.teacher_x is None else batch.teacher_x
        with torch.no_grad():
            return answer(self._network, x, self.taps)

    def to(self, device: torch.device) -> None:
        self._network.to(device)

    def after(self, epoch: int) -> None: ...

    def stepped(self) -> None: ...


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

    def probe(self) -> Batch:
        """A few samples, to see shapes by."""
        _, batches = self.open_epoch(0)
        images, labels, index = next(batches)
        few = slice(0, PROBE)
        return Batch(x=self.prepare(images[few].to(self.device), 0, 0), y=labels[few].to(self.device), index=index[few])
