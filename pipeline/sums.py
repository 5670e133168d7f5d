"""SHA256SUMS of a run's folder: what was shipped, so that it can be told apart from what was changed later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..targets.digests import sha256

NAME = "SHA256SUMS"  # in the form that `sha256sum --check` reads
SHIPPED = ("models", "bundle")  # folders; of the renderings only report.json, the others are made from it
BROUGHT = ("results", "kept", "status.json", "worker.lock", "worker.log", "probe.json", "sums.json", "results.tar")
FROM_BOARD = frozenset(PurePosixPath("bundle") / name for name in BROUGHT)  # what a bundle leaves when it runs
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
MOST_BYTES = 4 * 2**20  # of the file of sums: beyond it nothing that this program wrote


def write(out: Path) -> None:
    """Put the sums of everything that is shipped into the folder."""
    _put(out, [f"{sha256(path)}  {path.relative_to(out).as_posix()}\n" for path in shipped(out)])


def _put(out: Path, lines: list[str]) -> None:
    part = out / f".{NAME}.part"
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(out / NAME)


def renew(out: Path, name: str, *, before: str) -> None:
    """Put the new sum of one file where its old one stands; a file that had been changed by others stays wrong."""
    try:
        listed = read(out)
    except (OSError, ValueError):
        return
    if listed.get(name) == before:
        listed[name] = sha256(out / name)
        _put(out, [f"{digest}  {listed_name}\n" for listed_name, digest in listed.items()])


def shipped(out: Path) -> Iterator[Path]:
    """Every file that belongs to the result, in one order everywhere."""
    if (out / "report.json").is_file():
        yield out / "report.json"
    for folder in SHIPPED:
        for path in sorted((out / folder).rglob("*")):
            name = PurePosixPath(path.relative_to(out).as_posix())
            if path.is_file() and FROM_BOARD.isdisjoint((name, *name.parents)):
                yield path


def read(out: Path) -> dict[str, str]:
    """Name to sum. ValueError: the file is no list of sums. OSError: it cannot be read."""
    path = out / NAME
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{NAME} is larger than any that this program writes")
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{NAME}, line {number} is not a sum and a name")
        found[match[2]] = match[1]
    return found


def inside(out: Path, name: str) -> Path | None:
    """The file of that name in the folder; None where the name leads out of it, by `..` or a link, or is absolute."""
    if "\0" in name or PurePosixPath(name).is_absolute():
        return None
    try:
        path = (out / name).resolve()
        path.exists()
    except (OSError, RuntimeError):  # a name that is too long, links in a circle
        return None
    return path if path.is_relative_to(out.resolve()) else None
