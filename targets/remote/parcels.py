"""Files to and from a board many at a time: for each a line of JSON (name, size, sha256), then its content.

One command for all of them: every command over ssh costs a shell on the board and a way there and back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DeviceError, LostConnectionError
from .ssh import chunks, size_of

LONGEST_HEADER = 4096


class _Header(BaseModel):
    """What the board says of a file that it sends; `problem` where it sends none."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: str
    size: Annotated[int, Field(ge=0)]
    sha256: str


def pack(files: Mapping[str, bytes | Path], sums: Mapping[str, str]) -> Iterator[bytes]:
    """What the board's `receive` reads. sums: of each file, by the same name."""
    for name, content in files.items():
        header = {"name": name, "size": size_of(content), "sha256": sums[name]}
        yield json.dumps(header).encode() + b"\n"
        yield from chunks(content)


def unpack(data: bytes, *, wanted: Sequence[str], device: str) -> dict[str, bytes]:
    """What the board's `fetch` wrote: the first of the wanted files, and as many of the others as it sent along.

    DeviceError: that is no answer to what was asked. LostConnectionError: it is not whole.
    """
    found: dict[str, bytes] = {}
    start = 0
    while start < len(data):
        end = data.find(b"\n", start, start + LONGEST_HEADER)
        header = _header(data[start : end if end >= 0 else start + LONGEST_HEADER], device=device)
        if header.name not in wanted:
            raise DeviceError(f"{device}: it sent {header.name[:100]!r}, which nobody asked for")
        start = end + 1 + header.size
        content = data[end + 1 : start]
        if hashlib.sha256(content).hexdigest() != header.sha256:
            raise LostConnectionError(f"{device}: {header.name} came back damaged; it is fetched again")
        found[header.name] = content
    if wanted[0] not in found:
        raise LostConnectionError(f"{device}: {wanted[0]} did not come back; it is fetched again")
    return found


def _header(line: bytes, *, device: str) -> _Header:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        raise DeviceError(f"{device}: no file came back, but {line[:100]!r}") from None
    if isinstance(told, dict) and "problem" in told:
        raise DeviceError(f"{device}: {str(told['problem'])[:500]}")
    try:
        return _Header.model_validate(told)
    except ValidationError as error:
        raise DeviceError(f"{device}: what came back is no file ({error.errors()[0]['msg']})") from None
