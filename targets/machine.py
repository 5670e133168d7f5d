"""Everything about this machine that a latency depends on."""

import os
import platform
from pathlib import Path
from typing import Any

from . import container, cpu, heat, jetson
from .small_files import ROOT, field, number, text

CPUS = Path("sys/devices/system/cpu")


def describe(*, root: Path = ROOT) -> dict[str, Any]:
    """As plain data; None where something cannot be known."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    flags = cpu.instruction_sets(root=root)
    usable = cpu.usable_cpus()
    return {
        "cpu": cpu.model(root=root),
        "architecture": platform.machine(),
        "instruction_sets": [name for name in cpu.TELLING if name in flags],
        "int8_products_saturate": cpu.saturates(root=root),
        "virtual": "hypervisor" in flags,
        "cores": os.cpu_count(),
        "usable_cores": len(usable),
        "usable_cpus": list(usable),
        "threads_per_core": _threads_per_core(root),
        "governor": text(root / CPUS / "cpu0/cpufreq/scaling_governor"),
        "frequency_mhz": _frequency_mhz(root),
        "frequency_limit_mhz": _megahertz(root / CPUS / "cpu0/cpufreq/cpuinfo_max_freq"),
        "turbo": _turbo(root),
        "load_1m": round(load[0], 2) if load else None,
        "memory_mb": _mebibytes(root, "MemTotal"),
        "memory_available_mb": _mebibytes(root, "MemAvailable"),
        "swap_used_mb": swap_used_mb(root=root),
        "temperatures_c": heat.temperatures_c(root=root) or None,
        "container": container.limits(root=root),
        "jetson": jetson.describe(root=root),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def swap_used_mb(*, root: Path = ROOT) -> int | None:
    """MiB that lie in the swap space."""
    total, free = _mebibytes(root, "SwapTotal"), _mebibytes(root, "SwapFree")
    return None if total is None or free is None else total - free


def frequency_mhz(processor: int, *, root: Path = ROOT) -> float | None:
    """The clock of one CPU now."""
    return _megahertz(root / CPUS / f"cpu{processor}/cpufreq/scaling_cur_freq")


def _frequency_mhz(root: Path) -> float | None:
    known = frequency_mhz(0, root=root)
    seen = field(root / "proc/cpuinfo", "cpu MHz")
    return known if known is not None else float(seen) if seen else None


def _megahertz(path: Path) -> float | None:
    kilohertz = number(path)
    return kilohertz / 1000 if kilohertz is not None else None


def _turbo(root: Path) -> bool | None:
    """Whether the clock may go beyond its rated value, so that it depends on heat and on the other cores."""
    off = number(root / CPUS / "intel_pstate/no_turbo")
    if off is not None:
        return not off
    boost = number(root / CPUS / "cpufreq/boost")
    return bool(boost) if boost is not None else None


def _threads_per_core(root: Path) -> int | None:
    """From a list such as `0,4` or `0-1`: who shares the first core."""
    siblings = text(root / CPUS / "cpu0/topology/thread_siblings_list")
    if siblings is None:
        return None
    count = 0
    for part in siblings.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def _mebibytes(root: Path, name: str) -> int | None:
    line = field(root / "proc/meminfo", name)
    return int(line.split()[0]) // 1024 if line else None
