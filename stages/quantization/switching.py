"""What rounds, what is observed and what learns while a prepared network is calibrated and trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .prepare import NORMS, rounded_layers, roundings

# Batch norm learns for the first part of a long training only: its statistics are the float network's and good, and
# a moving target for the ranges (Krishnamoorthi, 2018, arXiv:1806.08342, section 3.2). Short trainings leave it.
NORM_LEARNS_SHARE = 0.3
SHORT = 3  # epochs
RANGES_LEARN_SHARE = 0.5


def switch_(module: nn.Module, *, epoch: int, epochs: int, norms_learn: bool = True) -> None:
    """What is still learned in this epoch besides the weights: batch norm early, ranges in the first half.

    norms_learn: False where images were made from the network: their statistics are not those of data.
    """
    frozen = not norms_learn or epochs <= SHORT or epoch >= max(1, round(epochs * NORM_LEARNS_SHARE))
    for layer in rounded_layers(module).values():
        layer.norm_frozen = frozen
    set_observing_(module, epoch < epochs * RANGES_LEARN_SHARE)


@contextmanager
def resting_norms(module: nn.Module) -> Iterator[None]:
    """While the block runs, batch norms that are not folded answer by what they kept and keep nothing, even in train
    mode: made images must not move statistics of data (GDFQ, arXiv:2003.03603, freezes them too)."""

    def rest(norm: nn.Module, _given: object) -> None:
        norm.eval()

    handles = [part.register_forward_pre_hook(rest) for part in module.modules() if isinstance(part, NORMS)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def set_observing_(module: nn.Module, observing: bool) -> None:
    """Let the ranges follow what they see, or hold them."""
    for rounding in roundings(module):
        rounding.observing = observing


def set_rounding_(module: nn.Module, rounding: bool) -> None:
    """Switch all rounding on or off; off, the network is its float twin with batch norm folded."""
    for part in roundings(module):
        part.rounding = rounding
    for layer in rounded_layers(module).values():
        layer.rounding = rounding
