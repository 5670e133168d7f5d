"""Let torch.compile speed up what a student computes, where that works."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from .distill.nouns import Batch, Player
from .distill.watching import logits_of


def compile_(player: Player, probe: Batch, *, note: Callable[[str], None]) -> None:
    """Compile the passes of a player's network; where that cannot be done, say why and leave it as it is.

    It is tried on a copy first, forwards and backwards: compiling is put off until a network is called, and its
    batch norms must not count a trial.
    """
    taps = player.objective.taps()
    if taps:
        few = ", ".join(taps[:3])
        note(f"not compiled: losses tap modules of the {player.name} ({few}), which a compiled pass hides")
        return
    trial = copy.deepcopy(player.module).train()
    try:
        with reusable_passes(), torch.random.fork_rng():
            logits_of(torch.compile(trial)(probe.x)).float().sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # a compiler's many parts raise many kinds, and training does not need it
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        note(f"not compiled: torch.compile does not work here ({type(error).__name__}: {reason})")
        return
    player.compiled = cast("nn.Module", torch.compile(player.module))


@contextmanager
def reusable_passes() -> Iterator[None]:
    """Compiled passes keep what they need to go backwards more than once, as the look at each loss's pull does."""
    import torch._functorch.config as settings

    with settings.patch(donated_buffer=False):
        yield
