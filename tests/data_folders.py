"""Where real data lie, for the tests that use them: beside the checkout, or where EDGEPRESS_DATA says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("EDGEPRESS_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def needed(name: str) -> Path:
    """A folder of real data; the test is skipped, with the reason, where it is not there."""
    path = FOLDER / name
    if not path.is_dir():
        pytest.skip(f"no folder {name} in {FOLDER.name}/ (set EDGEPRESS_DATA to a folder that holds it)")
    return path
