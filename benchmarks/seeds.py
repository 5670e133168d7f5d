"""Long runs over several seeds: each is written down when it ends, and a second call goes on from there."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairs import machine
from scipy import stats

Figures = Mapping[str, float]


def parser(description: str | None, *, data: str = "") -> argparse.ArgumentParser:
    """The options that every benchmark of distillation has. data: the kind of source, for those that take one."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data:
        made.add_argument("--data", required=True, metavar="SOURCE", help=f"as in a recipe, such as {data}")
    made.add_argument(
        "--quick", action="store_true", help="a few steps, to see that it works; the figures mean nothing"
    )
    made.add_argument("--seeds", type=_whole_numbers, metavar="0,1,2", help="default: 0,1,2 (quick: 0)")
    made.add_argument("--only", type=_names, default=(), metavar="NAME,...", help="these runs and what they need")
    made.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of training (default: fp32)")
    made.add_argument(
        "--json", type=Path, metavar="FILE", help="written after every run; given again, it is gone on with"
    )
    made.add_argument("--keep", type=Path, metavar="FOLDER", help="trained teachers and unfinished runs "
                      "(default: FILE without its ending, else a folder that is removed at the end)")  # fmt: skip
    return made


def seeds_of(options: argparse.Namespace) -> tuple[int, ...]:
    """Those that were given, or the usual ones."""
    return options.seeds or ((0,) if options.quick else (0, 1, 2))


def wanted(options: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """The runs to do, in order. Exits with a sentence where --only names none."""
    unknown = [name for name in options.only if name not in names]
    if unknown:
        sys.exit(f"--only: no run is called {', '.join(unknown)}; there are {', '.join(names)}")
    return [name for name in names if not options.only or name in options.only]


@dataclass(kw_only=True)
class Results:
    """Finished runs. settings: whatever decides their figures; runs of other settings stay in the file, unused.

    file: None keeps them in memory.
    """

    file: Path | None
    settings: Mapping[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.where = machine()
        self.settings = json.loads(json.dumps(dict(self.settings)))  # as they will be read back
        if self.file is not None and self.file.is_file():
            self.rows = json.loads(self.file.read_text(encoding="utf-8"))["runs"]

    def run(self, name: str, seed: int, do: Callable[[], Figures], **settings: Any) -> Figures:
        """The figures of a run: those on file, or those that `do` finds now. settings: of this run alone."""
        key = {"name": name, "seed": seed, "settings": {**self.settings, **settings}}
        for row in self.rows:
            if {part: row[part] for part in key} == key:
                found: Figures = row["figures"]
                return found
        began = time.perf_counter()
        figures = dict(do())
        seconds = round(time.perf_counter() - began, 1)
        self.rows.append({**key, "figures": figures, "seconds": seconds, "machine": self.where})
        self._write()
        told = "  ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
        print(f"{name}, seed {seed}: {told}  ({seconds:.0f} s)", file=sys.stderr, flush=True)
        return figures

    def by_name(self) -> dict[str, dict[int, dict[str, float]]]:
        """Figures by run and seed, of these settings."""
        found: dict[str, dict[int, dict[str, float]]] = {}
        for row in self.rows:
            if self.settings.items() <= row["settings"].items():
                found.setdefault(row["name"], {})[row["seed"]] = row["figures"]
        return found

    def values(self, name: str, figure: str, **settings: Any) -> dict[int, float]:
        """One figure of a run, by seed. settings: of that run alone, where it was made with several."""
        wanted = json.loads(json.dumps({**self.settings, **settings}))
        return {
            row["seed"]: row["figures"][figure]
            for row in self.rows
            if row["name"] == name and wanted.items() <= row["settings"].items()
        }

    def _write(self) -> None:
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            part = self.file.with_name(self.file.name + ".part")
            part.write_text(json.dumps({"runs": self.rows}, indent=1) + "\n", encoding="utf-8")
            part.replace(self.file)


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation, as `74.3 ± 3.1`."""
    sd = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{sd}"


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with its 95 % interval by Student's t; no interval of a single value."""
    middle = statistics.mean(values)
    if len(values) < 2:
        return middle, float("-inf"), float("inf")
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return middle, middle - half, middle + half


def difference(ours: Mapping[int, float], theirs: Mapping[int, float], digits: int = 2) -> str:
    """Ours less theirs, paired by seed, with its 95 % interval: `+0.42 (+0.11 to +0.73)`."""
    pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not pairs:
        return ""
    middle, low, high = interval(pairs)
    if len(pairs) < 2:
        return f"{middle:+.{digits}f} (one seed)"
    return f"{middle:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def comparison(values: Mapping[str, Mapping[int, float]], *, against: Sequence[str]) -> str:
    """A table of methods, the best first, with their differences to some of them. values: per cent, by seed."""
    best = sorted(values, key=lambda name: -statistics.mean(values[name].values()))
    there = [base for base in against if base in values]
    rows = [
        [
            name,
            mean_sd(list(values[name].values())),
            *("" if name == base else difference(values[name], values[base]) for base in there),
            len(values[name]),
        ]
        for name in best
    ]
    return table(["losses", "test accuracy, %", *(f"more than {base} (95 %)" for base in there), "n"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown, numbers to the right: every column but the first."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def _whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))
