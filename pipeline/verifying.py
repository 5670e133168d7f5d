"""`compress verify`: is a finished run what it says it is? The folder may come from anybody."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..targets.digests import sha256
from ..targets.errors import EdgepressError, RecipeError, StageError
from . import sums
from .checks import Check, check_figures
from .progress import result_console
from .report import render
from .report.schema import Report

STATES = {True: "ok", False: "FAILED", None: "not checked"}
STYLES = {True: "green", False: "bold red", None: "yellow"}
SHOWN = 5  # names in one sentence


def main(options: argparse.Namespace) -> int:
    """Check a folder, print what was found; returns 0, or 5 where something failed."""
    folder = Path(options.folder)
    if not folder.is_dir():
        raise RecipeError(f"no folder {folder}. Name the --out folder of a finished run.")
    checks = list(verify(folder, measure=not options.no_measure, data=options.data, seconds=options.seconds))
    failed = any(check.ok is False for check in checks)
    if options.json:
        print(
            json.dumps(
                {"folder": str(folder), "ok": not failed, "checks": [asdict(check) for check in checks]}, indent=2
            )
        )
    else:
        _show(checks, failed=failed)
    return StageError.exit_code if failed else 0


def verify(folder: Path, *, measure: bool = True, data: str | None = None, seconds: float = 3.0) -> Iterator[Check]:
    """Each check as it is done.

    measure: run the models too, if their hashes hold. data: a source instead of the report's.
    """
    files = list(check_files(folder))
    yield from files
    try:
        report = render.read(folder)
    except EdgepressError as error:
        yield Check(name="schema", ok=False, text=str(error))
        return
    yield Check(name="schema", ok=True, text=f"report.json is version {report.schema_version}")
    named = list(check_named_files(report, folder))
    yield from named
    yield from check_figures(report)
    if not measure:
        return
    if any(check.ok is not True for check in (*files, *named)):
        yield Check(name="measurement", ok=None, text="the models are not run: their files are not what was shipped")
        return
    from .remeasuring import measure_again

    yield from measure_again(report, folder, data=data, seconds=seconds)


def check_files(folder: Path) -> Iterator[Check]:
    """Every file that is listed is there and unchanged, and none was added."""
    try:
        listed = sums.read(folder)
    except FileNotFoundError:
        yield Check(
            name="hashes", ok=False, text=f"there is no {sums.NAME}: run `compress` again with this folder as --out"
        )
        return
    except (OSError, ValueError) as error:
        yield Check(name="hashes", ok=False, text=f"{sums.NAME} cannot be used: {error}")
        return
    outside = [name for name in listed if sums.inside(folder, name) is None]
    if outside:
        yield Check(name="hashes", ok=False, text=f"names that lead out of the folder: {_some(outside)}")
        return
    changed = [name for name, wanted in listed.items() if not _is_same(folder / name, wanted)]
    if changed:
        yield Check(name="hashes", ok=False, text=f"missing or changed: {_some(changed)}")
    added = [name for path in sums.shipped(folder) if (name := path.relative_to(folder).as_posix()) not in listed]
    if added:
        yield Check(name="hashes", ok=False, text=f"not listed: {_some(added)}")
    if not listed:
        yield Check(name="hashes", ok=False, text=f"{sums.NAME} lists nothing")
    elif not changed and not added:
        yield Check(name="hashes", ok=True, text=f"{len(listed)} files are as they were shipped")


def check_named_files(report: Report, folder: Path) -> Iterator[Check]:
    """What the report names lies in the folder and has the size that it says."""
    problems = []
    for variant in report.variants:
        path = sums.inside(folder, variant.file)
        if path is None:
            problems.append(f"{variant.name}: {variant.file!r:.100} leads out of the folder")
        elif not path.is_file():
            problems.append(f"{variant.name}: {variant.file!r:.100} is not there")
        elif (size := _size_bytes(path)) != variant.size_bytes:
            problems.append(f"{variant.name}: {size} bytes, the report says {str(variant.size_bytes)[:30]}")
    text = "; ".join(problems[:SHOWN]) or "every variant's file is there, with its size"
    yield Check(name="files of the variants", ok=not problems, text=text)


def _size_bytes(path: Path) -> int:
    weights = path.with_suffix(".bin")
    extra = weights.stat().st_size if path.suffix == ".xml" and weights.is_file() else 0
    return path.stat().st_size + extra


def _is_same(path: Path, wanted: str) -> bool:
    try:
        return path.is_file() and sha256(path) == wanted
    except OSError:
        return False


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"{name!r:.100}" for name in names[:SHOWN]) + more


def _show(checks: list[Check], *, failed: bool) -> None:
    console: Console = result_console()
    for check in checks:
        line = Text.assemble((f"{STATES[check.ok]:>11}", STYLES[check.ok]), f"  {check.name}: {check.text}")
        console.print(line, highlight=False, soft_wrap=True)
    console.print(Text("something does not hold" if failed else "nothing that was checked fails"), highlight=False)
