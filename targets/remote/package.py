"""The script for the board as one zip file, the same bytes for the same code."""

from __future__ import annotations

import functools
import io
import zipfile
from importlib import resources

MODULES = "board"
EPOCH = (1980, 1, 1, 0, 0, 0)


@functools.cache
def packed() -> bytes:
    """What `python3 FILE command` runs on the board."""
    folder = resources.files(__package__) / MODULES
    sources = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".py"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, entry in sources:
            if name != "__init__.py":
                archive.writestr(zipfile.ZipInfo(name, EPOCH), entry.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
