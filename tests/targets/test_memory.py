from pathlib import Path

import numpy as np
import pytest

from edgepress.targets import memory


def test_memory_that_is_written_to_is_counted() -> None:
    before = memory.now_mb()
    block = np.ones(16 * 2**20, dtype=np.uint8)
    after = memory.now_mb()
    assert after["peak"] >= before["peak"]
    assert after["peak"] >= after["resident"] >= before["resident"]
    if "anonymous" in before:
        assert after["anonymous"] - before["anonymous"] > 0.9 * block.nbytes / 2**20


def test_without_proc_the_peak_is_still_known(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    expected = memory.now_mb()["peak"]
    monkeypatch.setattr(memory, "STATUS", Path("/nowhere/status"))
    found = memory.now_mb()
    assert "anonymous" not in found
    assert found["peak"] >= 0.5 * expected
