"""How long a network takes for each width of each group, measured on the target and kept on disk.

What is timed are whole networks, exported as they would be shipped: all groups of one kind at one width, in turn with
the unpruned network. A layer alone would be laid out, fused and cached in other ways (`benchmarks/prune_to_latency.py
tables` compares both), and one group alone in a deep network changes less than can be told from noise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..structure import structure
from .bench import Bench, Form, Seen
from .costs import Counted, Layer, Tabled
from .cutting import Groups, first_channels, slim

FORMAT = 1
MOST_PROBES = 120
LEVELS = (2, 7)  # fewest and most widths of one kind that are timed; between them times are interpolated
AT_ONCE = 10  # probes of one run: more would be minutes apart from the baseline that they are compared with
SECONDS_EACH = 0.5  # of timing, for each probe; the warm-up comes on top
FULL = "full"  # the unpruned network in the form that is shipped


@dataclass(frozen=True, kw_only=True)
class Row:
    """All groups of a kind at one width: the network's time as a share of the unpruned one's in the same form."""

    kind: str
    width: int
    count: int  # groups of that kind
    share: float
    error: float  # half the 95 % interval


@dataclass(kw_only=True)
class Table:
    """Measured rows. identity: of device, runtime and version, outside of which they mean nothing. start: time of the
    unpruned network in its form, as a share of the float baseline's; None until it was measured."""

    identity: Mapping[str, Any]
    start: float | None = None
    baseline_ms: float | None = None
    rows: list[Row] = field(default_factory=list)

    def has(self, kind: str, width: int) -> bool:
        return any(row.kind == kind and row.width == width for row in self.rows)

    @classmethod
    def read(cls, path: Path, identity: Mapping[str, Any], *, note: Callable[[str], None]) -> Table:
        """What is on disk, or an empty one where nothing is, or where it is of something else."""
        identity = json.loads(json.dumps(dict(identity)))
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["format"] != FORMAT:
                return cls(identity=identity)
            if known["identity"] != identity:
                changed = [key for key in identity if known["identity"].get(key) != identity[key]]
                was = ", ".join(f"{key} {known['identity'].get(key)}" for key in changed)
                note(f"the table of times in {path} was measured with another {was}: it is measured again")
                return cls(identity=identity)
            rows = [Row(**row) for row in known["rows"]]
            return cls(identity=identity, start=known["start"], baseline_ms=known["baseline_ms"], rows=rows)
        except FileNotFoundError:
            return cls(identity=identity)
        except (OSError, ValueError, KeyError, TypeError) as error:
            note(f"the table of times in {path} cannot be read ({error}): it is measured again")
            return cls(identity=identity)

    def write(self, path: Path) -> None:
        """The file appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    def facts(self) -> dict[str, Any]:
        """As a report can hold it."""
        return asdict(self)


def name_of(module: nn.Module, *, form: str, shape: Sequence[int], runtime: str) -> str:
    """The file of a network's table: one for each structure, input, form and runtime."""
    kinds = [type(part).__name__ for part in module.modules()]
    text = json.dumps([structure(module), kinds, list(shape)], sort_keys=True)
    return f"{runtime}-{form}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def fill_(
    table: Table,
    path: Path,
    *,
    bench: Bench,
    module: nn.Module,
    groups: Groups,
    form: Form,
    note: Callable[[str], None] = lambda text: None,
    told: Callable[[str, float], None] = lambda text, share: None,
) -> None:
    """Time what is missing, and keep each run on disk before the next."""
    missing = [(kind, width) for kind, width in wanted(groups) if not table.has(kind, width)]
    for done in range(0, len(missing), AT_ONCE):
        now = missing[done : done + AT_ONCE]
        candidates = {FULL: (module, form)}
        for kind, width in now:
            widths = {name: width for name, group in groups.found.items() if group.kind == kind}
            candidates[f"{kind} {width}"] = (
                slim(module, groups.found.values(), first_channels(groups, widths)),
                form,
            )
        begun, part = done / len(missing), len(now) / len(missing)
        words = f"table of times, {len(table.rows)} of {len(table.rows) + len(missing) - done}"

        def tell(_text: str, share: float, words: str = words, begun: float = begun, part: float = part) -> None:
            told(words, begun + part * share)

        seen = bench.measure(candidates, seconds=SECONDS_EACH * (len(now) + 2), told=tell)
        if FULL not in seen:
            note(f"the unpruned network does not run as {form.name}")
            return
        _keep_(table, seen, now, groups)
        table.write(path)


def wanted(groups: Groups) -> list[tuple[str, int]]:
    """What is to be timed: for each kind its narrowest width and some between, the most groups first."""
    kinds: dict[str, list[int]] = {}
    counts: dict[str, int] = {}
    for group in groups.found.values():
        kinds[group.kind] = list(group.widths)
        counts[group.kind] = counts.get(group.kind, 0) + 1
    levels = max(LEVELS[0], min(LEVELS[1], MOST_PROBES // max(1, len(kinds))))
    found = []
    for kind in sorted(kinds, key=lambda kind: -counts[kind]):
        widths = kinds[kind]
        places = np.unique(np.linspace(0, len(widths) - 1, min(levels, len(widths))).round().astype(int))
        found += [(kind, widths[place]) for place in places]
    return found


def cost_of(table: Table, groups: Groups, layers: Sequence[Layer]) -> Tabled:
    """What the table says about widths of single groups."""
    full = groups.full()
    kinds = {group.kind: group for group in groups.found.values()}
    by_kind = {kind: _savings(group.width, [row for row in table.rows if row.kind == kind])
               for kind, group in kinds.items()}  # fmt: skip
    saves = {name: by_kind[group.kind] for name, group in groups.found.items()}
    return Tabled(layers=layers, full=full, saves=saves, together=_together(table, groups, layers))


def _keep_(table: Table, seen: Mapping[str, Seen], asked: Sequence[tuple[str, int]], groups: Groups) -> None:
    whole = seen[FULL]
    table.start, table.baseline_ms = whole.share, whole.baseline_ms
    for kind, width in asked:
        one = seen.get(f"{kind} {width}")
        if one is None:
            continue  # it did not run: the width is interpolated between its neighbours
        count = sum(group.kind == kind for group in groups.found.values())
        half = (one.high - one.low) / 2 / whole.share
        table.rows.append(Row(kind=kind, width=width, count=count, share=one.share / whole.share, error=half))


def _savings(full: int, rows: Sequence[Row]) -> Callable[[int], float]:
    """The share of all time that one group saves at a width. Noise that would make fewer channels slower is evened
    out; a width that really brings nothing stays one that brings nothing."""
    ordered = sorted(rows, key=lambda row: -row.width)
    widths = [full, *(row.width for row in ordered)]
    saved = [0.0, *_rising([(1 - row.share) / row.count for row in ordered])]

    def at(width: int) -> float:
        return float(np.interp(-width, [-one for one in widths], saved))

    return at


def _rising(values: Sequence[float]) -> list[float]:
    """The nearest values, by least squares, that never fall and are not below 0: pool adjacent violators."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (first, few), (second, more) = pools[-2:]
            pools[-2:] = [((first * few + second * more) / (few + more), few + more)]
    return [max(0.0, value) for value, count in pools for _ in range(count)]


def _together(table: Table, groups: Groups, layers: Sequence[Layer]) -> float:
    """How much of the time goes with multiply-accumulates: what rows save, by what they save of those."""
    full = groups.full()
    macs = Counted(layers=layers, what="macs", full=full)
    measured, counted = 0.0, 0.0
    for row in table.rows:
        widths = {name: row.width if group.kind == row.kind else full[name] for name, group in groups.found.items()}
        gone = 1 - macs.value(widths)
        measured += gone * (1 - row.share)
        counted += gone * gone
    return min(1.0, max(0.0, measured / counted)) if counted else 1.0
