"""How warm is this machine, and does it slow itself down?"""

from pathlib import Path

from .small_files import ROOT, number, text

NO_SENSORS = ("PMIC",)  # on a Jetson it always says 50 or 100 °C


def temperatures_c(*, root: Path = ROOT) -> dict[str, float]:
    """Every thermal zone by its name; empty where there is none, as in most virtual machines."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, millidegrees = text(zone / "type"), number(zone / "temp")
        if name and millidegrees is not None and not name.startswith(NO_SENSORS):
            found[name] = millidegrees / 1000
    return found


def throttle_count(*, root: Path = ROOT) -> int | None:
    """How often any core was slowed down for its heat since the machine started; None: it does not tell."""
    counts = [
        number(path) for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
