"""Let torch.compile speed up what a student computes, where that works."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .distill.nouns import Batch, Out, Player
from .distill.watching import Tapped

Pass = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]


@contextmanager
def compiled(player: Player, probe: Batch, *, note: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, passes of a player's network are compiled, taps and all; where that cannot be done, say why
    and leave them as they are.

    It is tried on a copy first, forwards and backwards: compiling is put off until a network is called, and its
    batch norms must not count a trial.
    """
    taps = player.objective.taps()
    problem = _problem(player.module, taps, probe.x)
    if problem is not None:
        note(f"not compiled: torch.compile does not work here ({problem})")
        yield
        return
    tapped = Tapped(player.module, taps)
    passes: Pass = torch.compile(tapped.__call__)
    player.compiled = lambda x: _out(*passes(x))
    try:
        yield
    finally:
        player.compiled = None
        tapped.close()


def _problem(module: nn.Module, taps: tuple[str, ...], x: Tensor) -> str | None:
    """Why compiled passes of it do not work; None: a copy went forwards and backwards."""
    try:
        passes: Pass = torch.compile(Tapped(copy.deepcopy(module).train(), taps).__call__)
        with reusable_passes(), torch.random.fork_rng():
            logits, feats = passes(x)
            total = torch.stack([value.float().sum() for value in (logits, *feats.values())]).sum()
            total.backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # a compiler's many parts raise many kinds, and training does not need it
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        return f"{type(error).__name__}: {reason}"
    return None


def _out(logits: Tensor, feats: dict[str, Tensor]) -> Out:
    return Out(logits=logits.float(), feats={tap: value.float() for tap, value in feats.items()})


@contextmanager
def reusable_passes() -> Iterator[None]:
    """Compiled passes keep what they need to go backwards more than once, as the look at each loss's pull does."""
    import torch._functorch.config as settings

    with settings.patch(donated_buffer=False):
        yield
