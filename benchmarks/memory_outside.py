"""Watches the processes that this one starts, as anybody could: through /proc."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

PERIOD_S = 0.002


class Outside:
    """last_peak_mb: VmHWM of the process that was started last, the last time it could be read."""

    def __init__(self) -> None:
        self.last_peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Outside:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        newest = 0
        while not self._stop.wait(PERIOD_S):
            for child in _children():
                peak = _peak_mb(child)
                if peak is not None and child >= newest:
                    newest, self.last_peak_mb = child, peak


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _peak_mb(process: int) -> float | None:
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) / 1024 if "VmHWM" in lines else None  # a zombie has none
