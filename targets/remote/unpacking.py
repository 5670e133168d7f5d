"""Texts that a board left, packed or not: they come from another machine, so sizes are limited."""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO

from ..errors import DeviceError

MOST_BYTES = 512 * 2**20  # of one unpacked file


def unpacked(data: bytes | None) -> str | None:
    """A gzip file's text, with a limit: a small file can unpack to a very large one."""
    if data is None:
        return None
    try:
        with gzip.GzipFile(fileobj=BytesIO(data)) as file:
            found = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DeviceError(f"a file of the board is damaged ({error})") from None
    if len(found) > MOST_BYTES:
        raise DeviceError(f"a file of the board unpacks to more than {MOST_BYTES >> 20} MiB")
    return text_of(found)


def text_of(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
