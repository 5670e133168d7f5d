"""Teachers for images that are being made: one that gradients pass through, and one that answers a batch once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..distill.nouns import Batch, Out, Teacher
from ..distill.sources import Frozen
from ..distill.watching import answer


@contextmanager
def held(*modules: nn.Module) -> Iterator[None]:
    """While the block runs these networks are in eval mode and learn nothing; gradients may pass through them."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    flags = [(one, one.requires_grad) for module in modules for one in module.parameters()]
    for module in modules:
        module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for one, flag in flags:
            one.requires_grad_(flag)


class Through(Frozen):
    """A network that answers and never learns, and through which a gradient reaches the images that it is shown.

    Of generators alone: for a student's turn images are detached, and `Frozen` is faster. Batch norms answer by what
    they have kept and keep nothing new; taps in front of them tell of the batch. A second view is answered as well.
    """

    def see(self, batch: Batch) -> Out:
        x = batch.x if batch.teacher_x is None else batch.teacher_x
        with held(self._network):
            said = answer(self._network, x, self.taps)
            if batch.view is None:
                return said
            return replace(said, view=answer(self._network, batch.view, self.taps))


class Once:
    """A teacher that computes what it says of a batch once, for a student that takes several steps on it.

    In ZSKT (Micaelli & Storkey, 2019, arXiv:1905.09768) ten: ten passes of the teacher become one. For teachers that do
    not change with the student. An answer that a gradient passes through is not kept: it can be used once.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._shown: tuple[object, ...] | None = None
        self._said: Out | None = None

    @property
    def module(self) -> nn.Module | None:
        """The network, where there is one to look at."""
        return self._teacher.module

    @module.setter
    def module(self, module: nn.Module | None) -> None:
        self._teacher.module = module

    @property
    def taps(self) -> tuple[str, ...]:
        """Which features it tells."""
        return self._teacher.taps

    @taps.setter
    def taps(self, taps: tuple[str, ...]) -> None:
        self._teacher.taps = taps

    def see(self, batch: Batch) -> Out:
        shown = (batch.x, batch.x._version, batch.teacher_x, batch.view, self.taps)
        if self._said is None or not _same(shown, self._shown):
            said = self._teacher.see(batch)
            self._shown, self._said = shown, said
            if said.logits.requires_grad:
                self._said = None
            return said
        return self._said

    def to(self, device: torch.device) -> None:
        self._forget()
        self._teacher.to(device)

    def after(self, epoch: int) -> None:
        self._forget()
        self._teacher.after(epoch)

    def stepped(self) -> None:
        self._teacher.stepped()

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint must hold: that of the teacher."""
        return self._teacher.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._forget()
        self._teacher.load_state_dict(state)

    def _forget(self) -> None:
        self._shown, self._said = None, None


def _same(shown: tuple[object, ...], before: tuple[object, ...] | None) -> bool:
    """The very same tensors, unchanged: they are compared by identity."""
    if before is None:
        return False
    return all(
        one is other if isinstance(one, Tensor) else one == other for one, other in zip(shown, before, strict=True)
    )
