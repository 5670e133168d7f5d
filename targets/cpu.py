"""Which processor is this, and what can it do?"""

import os
import platform
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .small_files import ROOT, field, text

if TYPE_CHECKING:
    from .profiles import Profile

# What decides how fast a network runs, in the names of /proc/cpuinfo.
TELLING = (
    *("sse4_2", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "amx_fp16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)
# These add products of bytes in 32 bits. Without them x86 adds pairs of products in 16 bits, and saturates.
WIDE_BYTE_PRODUCTS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "avx_vnni_int8"})
# Not avx512_fp16 alone: OpenVINO (2026.4) is slower with it than in float32 (0.88 times as fast on a Sapphire Rapids),
# and the processors that have it have matrix units for bfloat16, which is a candidate there.
HALF_UNITS = frozenset({"amx_fp16", "asimdhp"})
BFLOAT_UNITS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def usable_cpus() -> tuple[int, ...]:
    """The CPUs this process may run on, by number."""
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def instruction_sets(*, root: Path = ROOT) -> frozenset[str]:
    """All flags of the first processor in /proc/cpuinfo; empty where there is no such file."""
    info = root / "proc/cpuinfo"
    line = field(info, "flags") or field(info, "Features") or ""
    return frozenset(line.split())


def saturates(*, root: Path = ROOT) -> bool:
    """Do sums of 8-bit products overflow here, so that weights should keep to 7 bits?

    An x86 whose flags cannot be read counts as one that saturates: 7 bits cost little, wrong sums cost a lot.
    """
    return sums_saturate(platform.machine(), instruction_sets(root=root))


def sums_saturate(machine: str, flags: Collection[str]) -> bool:
    """The same of any processor. machine: as `uname -m` calls it."""
    return machine.lower() in {"x86_64", "amd64", "i386", "i686"} and WIDE_BYTE_PRODUCTS.isdisjoint(flags)


def has_bfloat16(*, root: Path = ROOT) -> bool:
    """Does this processor compute in bfloat16 itself, so that it is faster than float32?"""
    return not BFLOAT_UNITS.isdisjoint(instruction_sets(root=root))


def has_float16(*, root: Path = ROOT) -> bool:
    """Does this processor compute in float16 itself, so that it is faster than float32?"""
    return not HALF_UNITS.isdisjoint(instruction_sets(root=root))


def weight_bits(profile: "Profile") -> Literal[7, 8]:
    """7 or 8: what quantised weights may use on that device; `auto` looks at this CPU."""
    if profile.weight_bits == "auto":
        return 7 if saturates() else 8
    return profile.weight_bits


def model(*, root: Path = ROOT) -> str:
    """What its maker calls it; on a board, what the board is called."""
    on_a_board = text(root / "proc/device-tree/model")
    return field(root / "proc/cpuinfo", "model name") or on_a_board or platform.processor() or platform.machine()
