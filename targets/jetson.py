"""In which state is this Jetson board: power mode, and whether its clocks are held at their maximum?"""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .small_files import ROOT, number, text

Run = Callable[[Sequence[str]], str | None]
SECONDS = 5  # the tools answer at once, or not at all


def run(words: Sequence[str]) -> str | None:
    """What a command prints; None where it is not there or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def describe(*, root: Path = ROOT, run: Run = run) -> dict[str, Any] | None:
    """None on any other machine. power_mode: as NVIDIA calls it. clocks_held: None where that cannot be read."""
    release = text(root / "etc/nv_tegra_release")
    if release is None:
        return None
    return {
        "linux_for_tegra": linux_for_tegra(release),
        "power_mode": power_mode(run(["nvpmodel", "-q"]) or "") or _saved_power_mode(root),
        "clocks_held": _clocks_held(root),
    }


def is_one(*, root: Path = ROOT) -> bool:
    """Is this a Jetson? Its CPU and GPU share one memory."""
    return text(root / "etc/nv_tegra_release") is not None


def linux_for_tegra(release: str) -> str | None:
    """`36.4.3` from the first line of /etc/nv_tegra_release."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"{found[1]}.{found[2]}" if found else None


def power_mode(said: str) -> str | None:
    """`MAXN (0)` from what `nvpmodel -q` prints: a line with the name, and the number on the next."""
    found = re.search(r"NV Power Mode: *(\S+)\s+(\d+)", said)
    return f"{found[1]} ({found[2]})" if found else None


def _saved_power_mode(root: Path) -> str | None:
    """The same without the tool: the number that it saved, and the name from its table."""
    saved = re.search(r"pmode:0*(\d+)", text(root / "var/lib/nvpmodel/status") or "")
    if saved is None:
        return None
    table = text(root / "etc/nvpmodel.conf") or ""
    name = re.search(rf"< *POWER_MODEL +ID={saved[1]} +NAME=(\S+)", table)
    return f"{name[1] if name else 'unknown'} ({saved[1]})"


def _clocks_held(root: Path) -> bool | None:
    """What `jetson_clocks` does, read without its right to see all: lowest and highest clock are the same."""
    cpus = [
        (number(folder / "scaling_min_freq"), number(folder / "scaling_max_freq"))
        for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")
    ]
    gpus = [
        (number(folder / "min_freq"), number(folder / "max_freq"))
        for folder in (root / "sys/class/devfreq").glob("*")
        if re.search(r"gpu|gv11b|gp10b|gm20b|ga10b|gb10b", folder.name)
    ]
    ends = [pair for pair in (*cpus, *gpus) if None not in pair]
    return all(low == high for low, high in ends) if ends else None
