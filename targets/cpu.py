"""Which processor is this, what can it do, and how quiet is it?"""

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .profiles import Profile

ROOT = Path("/")
# What decides how fast a network runs, in the names of /proc/cpuinfo.
TELLING = (
    *("sse4_2", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)
# These add products of bytes in 32 bits. Without them x86 adds pairs of products in 16 bits, and saturates.
WIDE_BYTE_PRODUCTS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "avx_vnni_int8"})


def describe(*, root: Path = ROOT) -> dict[str, Any]:
    """Everything about this machine that a latency depends on; None where it cannot be known."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    flags = instruction_sets(root=root)
    return {
        "cpu": _model(root),
        "architecture": platform.machine(),
        "instruction_sets": [name for name in TELLING if name in flags],
        "int8_products_saturate": saturates(root=root),
        "cores": os.cpu_count(),
        "usable_cores": len(usable_cpus()),
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_mhz": _frequency_mhz(root),
        "load_1m": round(load[0], 2) if load else None,
        "memory_mb": _memory_mb(root),
        "container": _container(root),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def usable_cpus() -> tuple[int, ...]:
    """The CPUs this process may run on, by number."""
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def instruction_sets(*, root: Path = ROOT) -> frozenset[str]:
    """All flags of the first processor in /proc/cpuinfo; empty where there is no such file."""
    line = _field(root, "flags") or _field(root, "Features") or ""
    return frozenset(line.split())


def saturates(*, root: Path = ROOT) -> bool:
    """Do sums of 8-bit products overflow here, so that weights should keep to 7 bits?

    An x86 whose flags cannot be read counts as one that saturates: 7 bits cost little, wrong sums cost a lot.
    """
    if platform.machine().lower() not in {"x86_64", "amd64", "i386", "i686"}:
        return False
    return not (instruction_sets(root=root) & WIDE_BYTE_PRODUCTS)


def has_bfloat16(*, root: Path = ROOT) -> bool:
    """Does this processor compute in bfloat16 itself, so that it is faster than float32?"""
    return bool(instruction_sets(root=root) & {"avx512_bf16", "amx_bf16", "bf16"})


def weight_bits(profile: "Profile") -> Literal[7, 8]:
    """7 or 8: what quantised weights may use on that device; `auto` looks at this CPU."""
    if profile.weight_bits == "auto":
        return 7 if saturates() else 8
    return profile.weight_bits


def _model(root: Path) -> str:
    on_a_board = _text(root / "proc/device-tree/model")
    return _field(root, "model name") or on_a_board or platform.processor() or platform.machine()


def _field(root: Path, name: str) -> str | None:
    text = _text(root / "proc/cpuinfo") or ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _frequency_mhz(root: Path) -> float | None:
    in_khz = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if in_khz:
        return float(in_khz) / 1000
    seen = _field(root, "cpu MHz")
    return float(seen) if seen else None


def _memory_mb(root: Path) -> int | None:
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def _container(root: Path) -> dict[str, Any]:
    """Limits that a container sets: cores may be a fraction, None is no limit."""
    quota = (_text(root / "sys/fs/cgroup/cpu.max") or "max").split()
    cores = None if quota[0] == "max" else int(quota[0]) / int(quota[1])
    if cores is None:  # control groups, version 1
        allowed = int(_text(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us") or -1)
        period = int(_text(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us") or 100_000)
        cores = allowed / period if allowed > 0 else None
    memory = _text(root / "sys/fs/cgroup/memory.max") or "max"
    return {
        "inside": (root / ".dockerenv").exists() or (root / "run/.containerenv").exists(),
        "cores": cores,
        "memory_mb": None if memory == "max" else int(memory) // 2**20,
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\n\0 ") or None
    except OSError:
        return None
