"""How much memory does this process hold, now and at most, and how much does the system have left?"""

import contextlib
import sys
from pathlib import Path

from . import small_files

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FORGET_PEAK = "5"  # proc(5): "reset the peak resident set size to the current value"


def now_mb() -> dict[str, float]:
    """{"resident", "anonymous", "peak"} in MiB; only "peak", and the resident as far as known, off Linux.

    anonymous: what the process alone holds; resident also counts pages of libraries that others may share.
    """
    if STATUS.exists():
        lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines() if ":" in line)
        names = {"resident": "VmRSS", "anonymous": "RssAnon", "peak": "VmHWM"}
        return {name: int(lines[field].split()[0]) / 1024 for name, field in names.items() if field in lines}
    return _peak_only()


def available_mb(*, root: Path = small_files.ROOT) -> float | None:
    """MiB that programs could still take, by the kernel's own estimate; None off Linux."""
    found = small_files.field(root / "proc/meminfo", "MemAvailable")
    return int(found.split()[0]) / 1024 if found else None


def forget_peak() -> None:
    """Let "peak" start again from what is held now, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        CLEAR.write_text(FORGET_PEAK, encoding="ascii")


def _peak_only() -> dict[str, float]:
    if sys.platform == "win32":
        return {}
    import resource

    unit = 2**20 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"resident": peak, "peak": peak}
