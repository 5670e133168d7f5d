"""One line of tegrastats, from JetPack 4 to 7: what a Jetson does while an engine runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
SWAP = re.compile(r"\bSWAP (\d+)/(\d+)MB")
GPU = re.compile(r"\bGR3D_FREQ (?:(\d+)%)?(?:@\[?(\d+)[\d,]*\]?)?")
TEMPERATURE = re.compile(r"\b([A-Za-z][A-Za-z0-9_]*)@(-?\d+(?:\.\d+)?)C\b")
POWER = re.compile(r"\b((?:VDD|POM|VIN|CPU|GPU|SOC|VDDQ)_?[A-Z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?\b")
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Units: MiB, per cent, MHz, degrees Celsius, milliwatts (now). None: not told."""

    ram_used_mb: int | None = None
    ram_mb: int | None = None
    swap_used_mb: int | None = None
    gpu_percent: int | None = None
    gpu_mhz: int | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    power_mw: dict[str, int] = field(default_factory=dict)

    @property
    def total_power_mw(self) -> int | None:
        """Of the rail that feeds the whole board; None where there is none."""
        return next((self.power_mw[rail] for rail in TOTAL_RAILS if rail in self.power_mw), None)


def read(line: str) -> Reading | None:
    """None: that is no line of tegrastats."""
    ram = RAM.search(line)
    if ram is None:
        return None
    swap, gpu = SWAP.search(line), GPU.search(line)
    return Reading(
        ram_used_mb=int(ram[1]),
        ram_mb=int(ram[2]),
        swap_used_mb=int(swap[1]) if swap else None,
        gpu_percent=int(gpu[1]) if gpu and gpu[1] else None,
        gpu_mhz=int(gpu[2]) if gpu and gpu[2] else None,
        temperatures_c={name.lower(): float(value) for name, value in TEMPERATURE.findall(line)},
        power_mw={rail: int(now) for rail, now, _ in POWER.findall(line)},
    )
