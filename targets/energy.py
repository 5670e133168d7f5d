"""How much energy does one inference take? Read from counters that can be trusted, or not measured.

RAPL counts what a whole x86 package takes; an INA3221 on a Jetson measures the power of the board's rails. Both see
the machine and not the process, so what it takes at rest is measured in between and subtracted.
"""

import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from .small_files import ROOT, number, text

LEAST_SHARE = 0.01  # of the power at rest: less than that is the counter's own error
ROUNDS = 3  # of: at rest, then every engine; three show whether they agree
NOT_ALLOWED = "only root may read the energy counter {path} (chmod o+r lets you read it until the next start)"
NO_COUNTER = "this machine has no energy counter: no RAPL in /sys/class/powercap and no INA3221 on an I2C bus"
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")  # the input of the whole board
LEFT_OUT = ("NC", "sum of shunt voltages")


class Meter(Protocol):
    """Counts joules. visit_seconds: how long it must count to be trusted."""

    name: str
    visit_seconds: float

    def joules(self) -> float:
        """Since it was made. Ask at least every second: counters wrap around, and powers are added up."""


@dataclass(frozen=True, kw_only=True)
class Energy:
    """rounds_mj: each round's millijoules of one inference, the idle share subtracted. rest_watts: that share."""

    rounds_mj: tuple[float, ...]
    watts: float
    rest_watts: float
    inferences: int
    meter: str
    why_not: str | None = None  # measured, and still not to be told from rest

    @property
    def per_inference_mj(self) -> float | None:
        return None if self.why_not else statistics.median(self.rounds_mj)


def find(*, root: Path = ROOT, clock: Callable[[], float] = time.monotonic) -> tuple[Meter | None, str]:
    """The counter of this machine, or why there is none that can be used."""
    packages = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
    packages = [path for path in packages if re.fullmatch(r"package-\d+", text(path / "name") or "")]
    if packages:
        unread = [path for path in packages if number(path / "energy_uj") is None]
        if unread:
            return None, NOT_ALLOWED.format(path=unread[0] / "energy_uj")
        return Rapl(packages), ""
    rails = ina3221_rails(root)
    return (Ina3221(rails, clock=clock), "") if rails else (None, NO_COUNTER)


class Rapl:
    """The sum of all packages, from counters of microjoules that start again at their maximum."""

    name = "RAPL"
    visit_seconds = 1.0

    def __init__(self, packages: list[Path]) -> None:
        self._packages = {path: number(path / "max_energy_range_uj") or 2**32 for path in packages}
        self._last = {path: number(path / "energy_uj") or 0 for path in packages}
        self._total_uj = 0

    def joules(self) -> float:
        for path, most in self._packages.items():
            now = number(path / "energy_uj")
            if now is None:
                continue
            step = now - self._last[path]
            self._total_uj += step if step >= 0 else step + most + 1
            self._last[path] = now
        return self._total_uj / 1e6


@dataclass(frozen=True)
class Rail:
    """One channel. files: power in mW, or voltage in mV and current in mA."""

    label: str
    files: tuple[Path, ...]

    def watts(self) -> float:
        values = [number(path) or 0 for path in self.files]
        return values[0] / 1e3 if len(values) == 1 else values[0] * values[1] / 1e6


class Ina3221:
    """Power of the board's input, or of all its rails, added up over time."""

    name = "INA3221"
    visit_seconds = 4.0  # it averages over milliseconds and its steps are coarse

    def __init__(self, rails: list[Rail], *, clock: Callable[[], float]) -> None:
        total = [rail for rail in rails if rail.label in TOTAL_RAILS]
        self.rails = total[:1] or rails
        self._clock = clock
        self._joules, self._watts, self._at = 0.0, self._power(), clock()

    def joules(self) -> float:
        watts, now = self._power(), self._clock()
        self._joules += (watts + self._watts) / 2 * (now - self._at)
        self._watts, self._at = watts, now
        return self._joules

    def _power(self) -> float:
        return sum(rail.watts() for rail in self.rails)


def ina3221_rails(root: Path) -> list[Rail]:
    """Every channel of every such chip; JetPack 4 has them under iio, later ones under hwmon."""
    return [
        rail
        for name in sorted((root / "sys/bus/i2c/devices").glob("*/name"))
        if text(name) == "ina3221"
        for rail in (*_iio_rails(name.parent), *_hwmon_rails(name.parent))
        if rail.label not in LEFT_OUT
    ]


def _iio_rails(chip: Path) -> Iterator[Rail]:
    for label in sorted(chip.glob("iio:device*/rail_name_*")):
        channel = label.name.rpartition("_")[2]
        yield Rail(text(label) or "", (label.parent / f"in_power{channel}_input",))


def _hwmon_rails(chip: Path) -> Iterator[Rail]:
    for label in sorted(chip.glob("hwmon/hwmon*/in*_label")):
        channel = label.name.removeprefix("in").removesuffix("_label")
        current = label.parent / f"curr{channel}_input"
        if current.exists():  # channel 7 is the sum of shunt voltages and has no current
            yield Rail(text(label) or "", (label.parent / f"in{channel}_input", current))


def measure_in_turn(
    calls: Mapping[str, Callable[[], object]],
    meter: Meter,
    *,
    visiting: Callable[[str, float], None] = lambda name, share: None,
    stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Energy]:
    """Energy of each call, in rounds: the machine at rest, then every call without a pause."""
    rests: list[float] = []
    visits: dict[str, list[tuple[float, float, int]]] = {name: [] for name in calls}
    for step in range(ROUNDS):
        for place, name in enumerate(calls):
            if stopping():
                return {}
            visiting(name, (step + place / len(calls)) / ROUNDS)
            if place == 0:
                joules, seconds, _ = _visit(lambda: sleep(0.05), meter, clock)
                rests.append(joules / seconds)
            visits[name].append(_visit(calls[name], meter, clock))
    return {name: _energy(found, rests, meter.name) for name, found in visits.items()}


def _visit(call: Callable[[], object], meter: Meter, clock: Callable[[], float]) -> tuple[float, float, int]:
    """Joules, seconds and calls of one visit; the meter is asked now and then."""
    began, before, count = clock(), meter.joules(), 0
    asked = began
    while (now := clock()) - began < meter.visit_seconds:
        call()
        count += 1
        if now - asked > 0.05:
            meter.joules()
            asked = now
    return meter.joules() - before, clock() - began, count


def _energy(visits: list[tuple[float, float, int]], rests: list[float], meter: str) -> Energy:
    rest_watts = statistics.median(rests)
    rounds = tuple(1e3 * (joules - rest_watts * seconds) / count for joules, seconds, count in visits)
    watts = sum(joules for joules, _, _ in visits) / sum(seconds for _, seconds, _ in visits)
    why_not = None
    if min(rounds) <= 0 or watts - rest_watts <= max(max(rests) - min(rests), LEAST_SHARE * rest_watts):
        why_not = f"the {meter} counter cannot tell work ({watts:.2f} W) from rest ({rest_watts:.2f} W) here"
    return Energy(
        rounds_mj=rounds,
        watts=watts,
        rest_watts=rest_watts,
        inferences=sum(count for _, _, count in visits),
        meter=meter,
        why_not=why_not,
    )


def pack(energy: Energy) -> dict[str, Any]:
    return asdict(energy)


def unpack(values: Mapping[str, Any]) -> Energy:
    return Energy(**{**values, "rounds_mj": tuple(values["rounds_mj"])})
