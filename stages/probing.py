"""Who times candidates while a stage runs: a board, this machine, or whoever a test puts in their place."""

from __future__ import annotations

import numpy as np

from ..targets.probing import LocalProber, Prober
from ..targets.remote.probing import BoardProber
from .artifact import Context
from .data import loader


def prober_of(context: Context) -> Prober | None:
    """None: the device is not here, and no board stands for it."""
    if context.prober is not None:
        return context.prober
    profile = context.profile
    if profile.device != "local" and not context.boards:
        return None
    batch = next(iter(loader(context.data.val, batch_size=1, shuffle=False, seed=0, epoch=0)))[0]
    sample = np.ascontiguousarray(context.data.preprocessing.normalize(batch).numpy())
    if context.boards:
        holds = bool(getattr(context.later.get("profile"), "lock_clocks", False))
        return BoardProber(board=context.boards[0], profile=profile, sample=sample, lock_clocks=holds)
    return LocalProber(
        runtime=profile.measures_with, sample=sample, threads=profile.threads, environment=profile.environment
    )
