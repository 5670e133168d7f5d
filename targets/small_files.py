"""Read the small files in which a system tells about itself; None where it does not."""

from pathlib import Path

ROOT = Path("/")


def text(path: Path) -> str | None:
    """What the file says, without its white space and zero bytes; None: no such file, not readable, or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\n\0 ") or None
    except (OSError, ValueError):
        return None


def number(path: Path) -> int | None:
    """The whole number that the file holds; None where it holds none."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def field(path: Path, name: str) -> str | None:
    """The first `name: value` of a file of such lines."""
    for line in (text(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
