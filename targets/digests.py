"""The SHA-256 of a file, read in parts: it may be larger than the memory."""

import hashlib
from pathlib import Path

PART_BYTES = 2**20


def sha256(path: Path) -> str:
    """In hexadecimal digits, as `sha256sum` prints it. OSError: the file cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            digest.update(part)
    return digest.hexdigest()
