"""Begin making images from several random starts and go on with the best: a generator can collapse, and nobody sees it.

The starts are compared by what the teacher says of their first images. Labels and test images have no part in it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..progress import Progress
from .filling import Filling
from .order import Order
from .pool import Pool
from .synthetic import Restart

CHOSEN = "chosen.json"
TRIAL = 4  # batches that a start is judged by
MORE = 3  # starts beyond those that were asked for, where each has collapsed
SCHEMA = 2  # goes up when the same order makes other images


def best_start(
    order: Order,
    *,
    teacher: nn.Module,
    fingerprint: str,
    folder: Path,
    method: str,
    progress: Progress,
    note: Callable[[str], None],
) -> tuple[Filling, tuple[Restart, ...]]:
    """The start to go on with, its first images made, and what became of each.

    folder: of all of them. method: that a student will go on with, which need not be the one that makes these images.
    """

    def begun(seed: int) -> Filling:
        mine = replace(order, seed=seed)
        pool = Pool(
            folder / f"start-{seed}",
            shape=order.shape,
            teacher=fingerprint,
            limit_mb=order.settings.pool_mb,
            settings={**asdict(order.settings), "method": method},  # where `auto` was asked for, what it came to
            note=note,
        )
        return Filling(pool=pool, order=mine, teacher=teacher, progress=progress)

    known = _known(folder)
    if known is not None:
        return begun(known[0]), known[1]
    wanted, more = (order.settings.restarts, MORE) if order.method.play in ("turns", "pool") else (1, 0)
    tried: list[tuple[Filling, Restart]] = []
    while len(tried) < wanted or (_all_collapsed(tried) and len(tried) < wanted + more):
        seed = order.seed + len(tried)
        filling = begun(seed)
        score = filling.fill(min(order.images, TRIAL * order.batch))
        if score.collapsed:
            note(f"start {len(tried) + 1} of the images collapsed: {score.collapsed}")
        tried.append((filling, Restart(seed=seed, score=score.total, collapsed=score.collapsed)))
    best, chosen = max(tried, key=lambda one: (one[1].collapsed is None, one[1].score))
    best.seconds = sum(filling.seconds for filling, _ in tried)
    restarts = tuple(restart for _, restart in tried)
    best.save()
    _write(folder, chosen.seed, restarts)
    for filling, _ in tried:
        if filling is not best:
            shutil.rmtree(filling.pool.folder, ignore_errors=True)
    return best, restarts


def key_of(order: Order, fingerprint: str) -> str:
    """The same for orders of the same images, from the same teacher."""
    settings = {key: value for key, value in asdict(order.settings).items() if key not in ("rounds", "reuse")}
    facts: list[Any] = [
        SCHEMA,
        fingerprint,
        order.method.name,
        settings,
        order.preprocessing.facts(),
        order.seed,
        list(order.augmentation),
        order.device.type,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _all_collapsed(tried: list[tuple[Filling, Restart]]) -> bool:
    return all(restart.collapsed for _, restart in tried)


def _known(folder: Path) -> tuple[int, tuple[Restart, ...]] | None:
    """What an earlier run chose. None: it did not come so far."""
    try:
        facts = json.loads((folder / CHOSEN).read_text(encoding="utf-8"))
        return int(facts["seed"]), tuple(Restart(**one) for one in facts["restarts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(folder: Path, seed: int, restarts: tuple[Restart, ...]) -> None:
    part = folder / f"{CHOSEN}.part"
    part.write_text(json.dumps({"seed": seed, "restarts": [asdict(one) for one in restarts]}), encoding="utf-8")
    part.replace(folder / CHOSEN)
