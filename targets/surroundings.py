"""What else went on while a measurement ran: other programs, the clock, heat, swapping."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import container, heat, machine
from .small_files import ROOT, text

PERIOD_S = 0.25  # between two looks: reading a dozen small files takes a millisecond, outside the timed calls
TICKS_PER_SECOND = 100  # of /proc/stat, on every Linux that matters here


@dataclass(frozen=True)
class _Busy:
    """Seconds since the start of the machine that CPUs worked, and that a hypervisor gave to others."""

    pinned: float
    all: float
    stolen: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the machine. at_s: seconds from the first one."""

    at_s: float
    frequency_mhz: float | None
    temperature_c: float | None


class Watch:
    """Call `look` now and then while nothing is timed, and `end` once.

    cpus: those that the measurement is pinned to; none: it may run on any.
    """

    def __init__(
        self,
        *,
        cpus: Sequence[int],
        root: Path = ROOT,
        clock: Callable[[], float] = time.monotonic,
        own_seconds: Callable[[], float] = time.process_time,
    ) -> None:
        self._cpus, self._root, self._clock, self._own_seconds = tuple(cpus), root, clock, own_seconds
        self._began, self._own = clock(), own_seconds()
        self._busy = _busy(root, self._cpus)
        self._counts = self._count()
        self.seen: list[Look] = [self._look()]

    def look(self) -> None:
        """Cheap to call often: most calls only ask for the time."""
        if self._clock() - self._began >= self.seen[-1].at_s + PERIOD_S:
            self.seen.append(self._look())

    def end(self) -> dict[str, Any]:
        """What happened since the start, as plain data; None where this machine does not tell."""
        seconds = max(1e-9, self._clock() - self._began)
        self.seen.append(self._look())
        before, after = self._counts, self._count()
        return {
            "seconds": round(seconds, 3),
            **self._load(seconds),
            "frequency_mhz": spread([look.frequency_mhz for look in self.seen]),
            "temperature_c": spread([look.temperature_c for look in self.seen]),
            **{
                name: None if value is None or before[name] is None else value - (before[name] or 0)
                for name, value in after.items()
            },
        }

    def _load(self, seconds: float) -> dict[str, float | None]:
        """Shares of the pinned CPUs, and whole CPUs of the machine, that went elsewhere."""
        now = _busy(self._root, self._cpus)
        if self._busy is None or now is None:
            return {"others_on_pinned": None, "others_cpus": None, "stolen": None}
        own = self._own_seconds() - self._own
        width = max(1, len(self._cpus)) * seconds
        pinned, everywhere = now.pinned - self._busy.pinned, now.all - self._busy.all
        return {
            "others_on_pinned": round(max(0.0, pinned - own) / width, 4) if self._cpus else None,
            "others_cpus": round(max(0.0, everywhere - own) / seconds, 3),
            "stolen": round((now.stolen - self._busy.stolen) / width, 4),
        }

    def _look(self) -> Look:
        clocks = [machine.frequency_mhz(processor, root=self._root) for processor in self._cpus]
        known = [clock for clock in clocks if clock is not None]
        return Look(
            at_s=self._clock() - self._began,
            frequency_mhz=min(known, default=None),
            temperature_c=max(heat.temperatures_c(root=self._root).values(), default=None),
        )

    def _count(self) -> dict[str, int | None]:
        return {
            "throttle_events": heat.throttle_count(root=self._root),
            "swapped_pages": _swapped_pages(self._root),
            "container_stops": container.throttled(root=self._root),
        }


def _busy(root: Path, cpus: Sequence[int]) -> _Busy | None:
    """From /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, ... in ticks."""
    ticks = {}
    for line in (text(root / "proc/stat") or "").splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu"):
            ticks[name] = [int(number) for number in numbers]
    if "cpu" not in ticks:
        return None
    worked = {name: sum(found[:3]) + sum(found[5:7]) for name, found in ticks.items()}
    names = [f"cpu{processor}" for processor in cpus] or ["cpu"]
    return _Busy(
        pinned=sum(worked.get(name, 0) for name in names) / TICKS_PER_SECOND,
        all=worked["cpu"] / TICKS_PER_SECOND,
        stolen=sum(ticks[name][7] for name in names if len(ticks.get(name, ())) > 7) / TICKS_PER_SECOND,
    )


def _swapped_pages(root: Path) -> int | None:
    found = dict(line.split() for line in (text(root / "proc/vmstat") or "").splitlines() if line.startswith("pswp"))
    return sum(int(count) for count in found.values()) if found else None


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Of what was seen, in its order; None: nothing was."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "start": known[0],
        "lowest": min(known),
        "median": statistics.median(known),
        "highest": max(known),
        "end": known[-1],
    }
