"""What kind of board is this, what is installed, and how much room is left?"""

import concurrent.futures
import importlib.util
import os
import platform
import re
import shutil
import sys

import system

TOOL = "EDGEPRESS_TRTEXEC"
PLACES = (
    "/usr/src/tensorrt/bin/trtexec",
    "/usr/local/tensorrt/bin/trtexec",
    "/opt/tensorrt/bin/trtexec",
    "/usr/local/bin/trtexec",
)
CODE = re.compile(r"\[TensorRT v(\d+)\]")


def everything():
    tool = trtexec()
    disk = shutil.disk_usage(_existing(system.home()))
    return {
        "model": system.text("/proc/device-tree/model"),
        "compatible": (system.text("/proc/device-tree/compatible") or "").split("\0"),
        "nv_tegra_release": (system.text("/etc/nv_tegra_release") or "").split("\n")[0] or None,
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "cpu": _cpu(),
        "cpu_flags": _flags(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mb": (system.meminfo("MemTotal") or 0) // 1024,
        "available_mb": (system.meminfo("MemAvailable") or 0) // 1024,
        "swap_mb": (system.meminfo("SwapTotal") or 0) // 1024,
        "disk_free_mb": disk.free >> 20,
        "home": system.home(),
        "boot_id": system.boot_id(),
        "trtexec": tool,
        "tensorrt_code": version_code(tool) if tool else None,
        "cuda": _cuda(),
        "runtimes": _runtimes(),
        "power_mode": _power_mode(),
        "clocks": clocks(),
        "temperatures_c": temperatures(),
        "has_sudo": system.told(["sudo", "-n", "true"]) is not None,
        "load": os.getloadavg()[0],
    }


def trtexec():
    """The tool's path; None where it is not installed."""
    chosen = os.environ.get(TOOL)
    if chosen:
        return chosen if os.access(chosen, os.X_OK) else None
    found = shutil.which("trtexec")
    return found or next((place for place in PLACES if os.access(system.rooted(place), os.X_OK)), None)


def version_code(tool):
    """8201 of TensorRT 8.2.1, as the tool prints it before anything else."""
    said = system.told([tool, "--help"], seconds=60) or ""
    found = CODE.search(said)
    return found.group(1) if found else None


def clocks():
    """GPU and CPU: now, at least and at most, in MHz, where the system tells."""
    found = {}
    for name in system.listed("/sys/class/devfreq"):
        folder = "/sys/class/devfreq/" + name
        if re.search(r"gpu|gv11b|gp10b|gm20b|ga10b|gb", name):
            found["gpu"] = _range(folder + "/cur_freq", folder + "/min_freq", folder + "/max_freq", 1000000)
    folder = "/sys/devices/system/cpu/cpu0/cpufreq"
    if system.listed(folder):
        found["cpu"] = _range(
            folder + "/scaling_cur_freq", folder + "/scaling_min_freq", folder + "/scaling_max_freq", 1000
        )
        found["governor"] = system.text(folder + "/scaling_governor")
    return found


def temperatures():
    found = {}
    for zone in system.listed("/sys/class/thermal"):
        if not zone.startswith("thermal_zone"):
            continue
        folder = "/sys/class/thermal/" + zone
        value = system.number(folder + "/temp")
        if value is not None and -40000 < value < 150000:
            found[system.text(folder + "/type") or zone] = value / 1000.0
    return found


def _range(now, low, high, unit):
    values = [system.number(path) for path in (now, low, high)]
    return [None if value is None else value / float(unit) for value in values]


def _cpu():
    for line in (system.text("/proc/cpuinfo", limit=1 << 20) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return None


def _flags():
    for line in (system.text("/proc/cpuinfo", limit=1 << 20) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return value.strip()[:4000]
    return ""


def _cuda():
    found = re.search(
        r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', system.text("/usr/local/cuda/version.json") or ""
    )
    if found:
        return found.group(1)
    found = re.search(r"CUDA Version ([\d.]+)", system.text("/usr/local/cuda/version.txt") or "")
    return found.group(1) if found else None


def _runtimes():
    """Runtimes that can be imported here, by version; each in a process of its own, all at once."""
    found = {}
    there = [name for name in ("onnxruntime", "openvino", "tensorrt") if importlib.util.find_spec(name)]
    script = "import %s as m; print(getattr(m, '__version__', 'unknown'))"
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(system.told, [sys.executable, "-c", script % name], 60) for name in there]
        for name, answer in zip(there, asked):
            if answer.result():
                found[name] = answer.result().strip().splitlines()[-1]
    return found


def _power_mode():
    said = system.told(["nvpmodel", "-q"]) or ""
    found = re.search(r"NV Power Mode: ?(\S.*)", said)
    return found.group(1).strip() if found else None


def _existing(path):
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    return path
