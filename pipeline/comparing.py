"""`compress compare`: finished runs side by side, as far as they were measured under the same conditions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ..targets.errors import RecipeError, StageError
from .progress import result_console
from .report import render, words
from .report.rows import main_place, rows
from .report.schema import Report, Variant

COLUMNS = ("run", "variant", "accuracy", "change", "latency, ms", "times faster", "size", "peak memory", "budget")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One variant of one run. differs: under which conditions it was measured otherwise than the first run."""

    run: str
    variant: str
    is_chosen: bool
    cells: tuple[str, ...]
    differs: tuple[str, ...]


def main(options: argparse.Namespace) -> int:
    """Compare the runs of the folders; print a table or JSON, and write a page if one was asked for."""
    folders = [Path(name) for name in options.folders]
    if len(folders) < 2:
        raise RecipeError("compare takes two folders at least: compress compare RUN RUN")
    reports = {name: render.read(folder) for name, folder in zip(labels(folders), folders, strict=True)}
    differing = differences(reports)
    if any(differing.values()) and not options.anyway:
        raise RecipeError(_refusal(differing, next(iter(reports))))
    found = [line for name, report in reports.items() for line in lines(name, report, tuple(differing[name]))]
    if options.html:
        _write_page(Path(options.html), found, differing)
    if options.json:
        print(json.dumps(facts(reports, differing), indent=2))
    else:
        _show(found, differing)
    return 0


def labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names, or their paths where two have one name. RecipeError: one folder stands twice."""
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise RecipeError("one folder stands twice: there is nothing to compare it with")
    names = [folder.name for folder in resolved]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def conditions(report: Report) -> dict[str, Any]:
    """Everything that two figures must share to be compared, in words that a reader knows."""
    timed = next((variant.latency_ms for variant in report.variants if variant.latency_ms), None)
    machine, data, made = report.run.machine, report.data, report.synthesis
    runtime = timed.runtime if timed else None
    return {
        "where it was measured": main_place(report),
        "board": machine.get("board"),
        "power mode": (machine.get("jetson") or {}).get("power_mode"),
        "processor": machine.get("cpu"),
        "instruction sets": machine.get("instruction_sets"),
        "usable cores": machine.get("usable_cores"),
        "governor": machine.get("governor"),
        "runtime": runtime,
        "version of the runtime": report.run.versions.get(runtime) if runtime else None,
        "threads": timed.threads if timed else None,
        "environment of the measurement": report.profile.get("environment") or {},
        "test data": (made and made.evaluated_on) or (data.source if data else None),
        "images that stood in for test data": made.pool if made and made.evaluated_on is None else None,
        "number of test images": data.test if data else None,
    }


def differences(reports: Mapping[str, Report]) -> dict[str, list[str]]:
    """For each run, what it does not share with the first: `threads: 2 instead of 1`."""
    known = {name: conditions(report) for name, report in reports.items()}
    first = next(iter(known.values()))
    return {
        name: [
            f"{what}: {_short(value)} instead of {_short(first[what])}"
            for what, value in mine.items()
            if value != first[what]
        ]
        for name, mine in known.items()
    }


def lines(name: str, report: Report, differs: tuple[str, ...]) -> list[Line]:
    """The baseline and the chosen variant: a baseline that moved tells more about the machine than about the model."""
    shown = []
    for index, (variant, row) in enumerate(zip(report.variants, rows(report, where=main_place(report)), strict=True)):
        if index and not row.is_chosen:
            continue
        budget = words.state(report.verdict.met) if row.is_chosen else ""
        cells = (row.accuracy, row.change, row.latency, row.faster, row.size, row.memory, budget)
        shown.append(Line(run=name, variant=variant.name, is_chosen=row.is_chosen, cells=cells, differs=differs))
    return shown


def facts(reports: Mapping[str, Report], differing: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The comparison as plain data; samples stay in the reports."""
    return {
        "comparable": not any(differing.values()),
        "runs": [
            {
                "run": name,
                "id": report.run.id,
                "started": report.run.started,
                "target": report.profile.get("name"),
                "differs": list(differing[name]),
                "verdict": report.verdict.model_dump(),
                "chosen": report.chosen.model_dump(),
                "variants": [_variant_facts(variant) for variant in report.variants],
            }
            for name, report in reports.items()
        ],
    }


def _variant_facts(variant: Variant) -> dict[str, Any]:
    known = variant.model_dump(
        include={"name", "precision", "size_bytes", "parameters", "macs", "accuracy", "speedup", "memory_mb"}
    )
    latency = variant.latency_ms
    return known | {"latency_ms": latency.model_dump(exclude={"samples"}) if latency else None}


def _refusal(differing: Mapping[str, Sequence[str]], first: str) -> str:
    parts = [f"  {name}: {text}" for name, found in differing.items() for text in found]
    return "\n".join(
        [
            f"these runs were not measured under the conditions of {first}, so their figures cannot be compared:",
            *parts,
            "Measure them again under the same ones, or add --anyway: then every row that differs is marked.",
        ]
    )


def _show(found: Sequence[Line], differing: Mapping[str, Sequence[str]]) -> None:
    console = result_console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, title in enumerate(COLUMNS):
        table.add_column(title, justify="left" if place < 2 else "right", overflow="fold")
    for line in found:
        mark = "▸ " if line.is_chosen else "  "
        style = "yellow" if line.differs else "bold green" if line.is_chosen else ""
        table.add_row(_marked(line), f"{mark}{line.variant}", *line.cells, style=style)
    console.print(table)
    console.print("▸ marks what was chosen; ± and parentheses are 95 % intervals.", style="dim", highlight=False)
    for text in notes(differing):
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def notes(differing: Mapping[str, Sequence[str]]) -> list[str]:
    """What every marked row differs in."""
    return [
        f"* {name} is not comparable with the first run: {'; '.join(found)}"
        for name, found in differing.items()
        if found
    ]


def _marked(line: Line) -> str:
    return f"{line.run} *" if line.differs else line.run


def _write_page(path: Path, found: Sequence[Line], differing: Mapping[str, Sequence[str]]) -> None:
    from .report.comparison import page

    table = [(_marked(line), line.variant, *line.cells) for line in found]
    chosen = [line.is_chosen for line in found]
    try:
        path.write_text(page(COLUMNS, table, chosen=chosen, notes=notes(differing)), encoding="utf-8")
    except OSError as error:
        raise StageError(f"cannot write {path}: {error.strerror}. Name another file with --html.") from None


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))[:120] or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={inner}" for key, inner in value.items())[:120] or "none"
    return "not known" if value is None else str(value)[:120]
