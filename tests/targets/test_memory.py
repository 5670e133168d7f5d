import mmap
from pathlib import Path

import pytest

from edgepress.targets import memory

SIZE_MB = 32


def test_memory_that_is_written_to_is_counted() -> None:
    before = memory.now_mb()
    block = mmap.mmap(-1, SIZE_MB * 2**20)  # pages of its own: an allocator hands out old ones again
    for place in range(0, SIZE_MB * 2**20, mmap.PAGESIZE):
        block[place] = 1
    after = memory.now_mb()
    assert after["peak"] >= before["peak"]
    assert after["peak"] >= after["resident"] >= before["resident"]
    if memory.STATUS.exists():
        assert after["resident"] - before["resident"] > 0.9 * SIZE_MB


def test_without_proc_the_peak_is_still_known(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    expected = memory.now_mb()["peak"]
    monkeypatch.setattr(memory, "STATUS", Path("/nowhere/status"))
    found = memory.now_mb()
    assert "anonymous" not in found
    assert found["peak"] >= 0.5 * expected


def test_what_is_available_is_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  4059652 kB\nMemFree:  512 kB\nMemAvailable:  2097152 kB\n")
    assert memory.available_mb(root=tmp_path) == 2048
    assert memory.available_mb(root=tmp_path / "nowhere") is None
