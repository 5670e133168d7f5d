"""`compress device`: what a board is and which profile fits it, and what to do about what was left there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from ..targets import profiles
from ..targets.errors import DeviceError, RuntimeMissingError
from ..targets.profiles import Profile
from ..targets.remote import fitting
from ..targets.remote.address import Address
from ..targets.remote.boards import BoardFacts
from ..targets.remote.device import Device
from .progress import result_console

LITTLE_DISK_MB = 2048  # engines, timing caches and results of a few large networks


def main(options: argparse.Namespace) -> int:
    """Carry out one of the commands for a board; returns the exit code."""
    address = Address.parse(options.address)
    with Device(address, python=options.device_python or "python3") as device:
        if options.what == "clean":
            print(f"{address}: removed {device.clean()}")
            return 0
        if options.what == "unlock":
            restored = device.restore_clocks()
            print(
                f"{address}: "
                f"{'clocks and power mode are as they were' if restored else 'edgepress holds nothing there'}"
            )
            return 0
        facts = device.probe()
    profile = profiles.load(options.target) if options.target else None
    return check(address, facts, profile, as_json=options.json)


def check(address: Address, facts: BoardFacts, profile: Profile | None, *, as_json: bool) -> int:
    """Print what the board is. profile: that it should fit; then the exit code says whether it does."""
    shipped = [profiles.load(name) for name in profiles.names()]
    fitting_ones = [one.name for one in fitting.best(shipped, facts)]
    wrong = list(_wrong(profile, facts)) if profile else []
    told = {
        "device": str(address),
        "board": known(facts),
        "missing": list(missing(facts)),
        "profiles": fitting_ones,
        "without": None if fitting_ones else _without(facts),
        "problems": [text for _, text in wrong],
    }
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        _show(told, profile)
    return wrong[0][0] if wrong else 0


def known(facts: BoardFacts) -> dict[str, Any]:
    """What the board told of itself, in the order of interest; nothing that it did not tell."""
    gpu = facts.clocks.get("gpu")
    found = {
        "module": facts.model or facts.cpu,
        "processor": facts.cpu if facts.model else None,
        "cores": facts.cpus,
        "L4T": facts.l4t,
        "JetPack": facts.jetpack,
        "TensorRT": facts.tensorrt,
        "trtexec": facts.trtexec,
        "CUDA": facts.cuda,
        "GPU": f"compute capability {facts.gpu}, {'with' if facts.has_int8 else 'no'} INT8" if facts.gpu else None,
        "power mode": facts.power_mode,
        "GPU clock": _clock(gpu),
        "CPU clock": _clock(facts.clocks.get("cpu")),
        "clocks held": {True: "yes", False: "no"}.get(facts.clocks_held) if facts.clocks_held is not None else None,
        "governor": facts.clocks.get("governor"),
        "memory": f"{facts.available_mb} of {facts.memory_mb} MiB free, {facts.swap_mb} MiB swap",
        "disk": f"{facts.disk_free_mb} MiB free for {facts.home}",
        "Python": facts.python,
        "runtimes": ", ".join(f"{name} {version.partition('-')[0]}" for name, version in sorted(facts.runtimes.items()))
        or "none",
        "warmest": f"{max(facts.temperatures_c.values()):.0f} °C" if facts.temperatures_c else None,
        "load": f"{facts.load:.2f}",
        "kernel": f"{facts.kernel} on {facts.machine}",
    }
    return {name: value for name, value in found.items() if value is not None}


def missing(facts: BoardFacts) -> Iterator[str]:
    """What the board lacks to be measured, or to be measured well."""
    if facts.l4t is not None and facts.trtexec is None:
        yield "trtexec: install TensorRT with JetPack (sudo apt install nvidia-jetpack)"
    if facts.l4t is None and facts.trtexec is None and not {"onnxruntime", "openvino"} & facts.runtimes.keys():
        yield (
            "a runtime: `pip install onnxruntime` there (or openvino), in an environment whose Python "
            "--device-python names"
        )
    if facts.l4t is not None and not facts.has_sudo:
        yield "sudo without a password for jetson_clocks and nvpmodel: only --lock-clocks and --power-mode need it"
    if facts.clocks_held is False:
        yield "steady clocks: they follow the load; --lock-clocks holds a Jetson's while it is measured"
    if facts.l4t is not None and facts.jetpack is None:
        yield f"a JetPack that is known here for L4T {facts.l4t}"
    if facts.disk_free_mb < LITTLE_DISK_MB:
        yield f"room on the disk: {facts.disk_free_mb} MiB are free, engines of large networks take more"


def _wrong(profile: Profile, facts: BoardFacts) -> Iterator[tuple[int, str]]:
    """Why the profile does not fit, each with its exit code."""
    lacking = fitting.missing(profile, facts)
    if lacking is not None:
        yield RuntimeMissingError.exit_code, lacking
    for text in fitting.problems(profile, facts):
        yield DeviceError.exit_code, text


def _without(facts: BoardFacts) -> str:
    """What to do where no profile fits."""
    if facts.trtexec is None and not {"onnxruntime", "openvino"} & facts.runtimes.keys():
        return "none yet: give it a runtime first"
    return "none that is shipped fits: write one of your own"


def _clock(values: object) -> str | None:
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(one, (int, float)) for one in values):
        return None
    now, low, high = values
    return f"{now:.0f} MHz (from {low:.0f} to {high:.0f})"


def _show(told: dict[str, Any], profile: Profile | None) -> None:
    console: Console = result_console()

    def line(name: str, text: str) -> None:
        console.print(f"{name:>12}  {_printable(text)}", markup=False, highlight=False, soft_wrap=True)

    line("device", told["device"])
    for name, value in told["board"].items():
        line(name, str(value))
    for text in told["missing"]:
        line("missing", text)
    line("profiles", ", ".join(told["profiles"]) or told["without"])
    for text in told["problems"]:
        line("does not fit", text)
    if profile is not None and not told["problems"]:
        line("fits", f"profile {profile.name}")


def _printable(text: str) -> str:
    """What a board says of itself must not steer the terminal that it is shown on."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
