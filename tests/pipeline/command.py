"""Run the command line inside the test."""

from __future__ import annotations

import pytest

from edgepress.pipeline import cli


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The exit code, what was printed, and what was said on standard error, on one line."""
    code = cli.main(words)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, " ".join(captured.err.split())
