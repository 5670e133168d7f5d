"""What a bundle's run left on a board: an archive that somebody brought back, taken apart with care.

Nothing of it is written to disk: names are compared with those that a run leaves, sizes are limited, sums are checked.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from .boards import BoardFacts, facts_of
from .device import Left

NAME = re.compile(r"(results/)?[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
MOST_FILES, MOST_FILE_BYTES, MOST_BYTES = 50_000, 512 * 2**20, 2**30
MANIFEST, PROBE, SUMS = "manifest.json", "probe.json", "sums.json"


class Carried(Left):
    """The results of a job, from an archive. manifest: of the job. facts: what the board told of itself."""

    def __init__(self, archive: Path, contents: Mapping[str, bytes]) -> None:
        prefix = "results/"
        found = {name.removeprefix(prefix): data for name, data in contents.items() if name.startswith(prefix)}
        super().__init__(tuple(sorted(found)), origin=str(archive))
        self._results = found
        self.manifest = _mapping(archive, MANIFEST, contents)
        self.facts: BoardFacts = facts_of(_mapping(archive, PROBE, contents), device=str(archive))

    def read(self, name: str, *, limit_bytes: int = MOST_FILE_BYTES) -> bytes | None:
        return self._results.get(name)


def open_archive(archive: Path) -> Carried:
    """RecipeError: it is no archive of results, is damaged, or holds what no run leaves."""
    try:
        if archive.stat().st_size > MOST_BYTES:
            raise RecipeError(f"{archive} is larger than results of a run are: it is refused")
        with tarfile.open(archive, "r:") as members:  # as run.sh writes it: nothing that unpacks to more than it is
            contents = _contents(archive, members)
    except OSError as error:
        raise RecipeError(f"cannot read {archive}: {error.strerror or error}") from None
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise RecipeError(f"{archive} is no tar archive, or a damaged one ({error}): copy it again") from None
    sums = _mapping(archive, SUMS, contents)
    wrong = [
        name for name, data in contents.items() if name != SUMS and sums.get(name) != hashlib.sha256(data).hexdigest()
    ]
    wrong += [str(name)[:100] for name in sums if name not in contents]
    if wrong:
        raise RecipeError(f"{archive} is damaged or was changed ({', '.join(sorted(wrong)[:5])}): copy it again")
    return Carried(archive, contents)


def _contents(archive: Path, members: tarfile.TarFile) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    total = 0
    for member in members:
        if not member.isfile() or not NAME.fullmatch(member.name) or member.name in found:
            raise RecipeError(
                f"{archive} holds {member.name[:100]!r}, which no run leaves (a link, a folder, a path that leads "
                "out of it, or a name twice): it is refused"
            )
        total += member.size
        if member.size > MOST_FILE_BYTES or total > MOST_BYTES or len(found) >= MOST_FILES:
            raise RecipeError(f"{archive} holds more than results of a run do: it is refused at {member.name[:100]!r}")
        file = members.extractfile(member)
        assert file is not None, "it is a file"
        found[member.name] = file.read()
    return found


def _mapping(archive: Path, name: str, contents: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        found = json.loads(contents[name])
    except KeyError:
        raise RecipeError(f"{archive} has no {name}: it is not what run.sh left (results.tar)") from None
    except (ValueError, RecursionError):
        raise RecipeError(f"{archive}: {name} is damaged") from None
    if not isinstance(found, dict):
        raise RecipeError(f"{archive}: {name} is damaged")
    return found
