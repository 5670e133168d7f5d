"""Which limits does a container, or any other control group, set to this process?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .small_files import ROOT, number, text

GROUPS = Path("sys/fs/cgroup")
NO_LIMIT = 2**60  # version 1 writes a number near 2^63 for "none"


def limits(*, root: Path = ROOT) -> dict[str, Any]:
    """The tightest limit on the way from this process's group to the root. cores may be a fraction; None: none."""
    cores = [*_quotas(root), *_old_quotas(root)]
    memory = [*_memory(root, "", "memory.max"), *_memory(root, "memory", "memory.limit_in_bytes")]
    return {
        "inside": (root / ".dockerenv").exists() or (root / "run/.containerenv").exists(),
        "cores": min(cores, default=None),
        "memory_mb": min(memory, default=None),
    }


def throttled(*, root: Path = ROOT) -> int | None:
    """How often the limit of cores has stopped this group so far; None: it does not tell."""
    counts = []
    for folder in (*_folders(root, ""), *_folders(root, "cpu"), *_folders(root, "cpu,cpuacct")):
        for line in (text(folder / "cpu.stat") or "").splitlines():
            name, _, value = line.partition(" ")
            if name == "nr_throttled":
                counts.append(int(value))
    return max(counts, default=None)


def _quotas(root: Path) -> Iterator[float]:
    for folder in _folders(root, ""):
        quota = (text(folder / "cpu.max") or "max").split()
        if quota[0] != "max":
            yield int(quota[0]) / int(quota[1])


def _old_quotas(root: Path) -> Iterator[float]:
    for folder in (*_folders(root, "cpu"), *_folders(root, "cpu,cpuacct")):
        allowed = number(folder / "cpu.cfs_quota_us")
        if allowed is not None and allowed > 0:
            yield allowed / (number(folder / "cpu.cfs_period_us") or 100_000)


def _memory(root: Path, controller: str, name: str) -> Iterator[int]:
    for folder in _folders(root, controller):
        limit = number(folder / name)
        if limit is not None and limit < NO_LIMIT:
            yield limit // 2**20


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """This process's group and all above it. controller: "" in version 2, which has one tree for all."""
    top = root / GROUPS / controller
    group = top / (_group(root, controller) or "").lstrip("/")
    while True:
        if group.is_dir():
            yield group
        if group in (top, group.parent):
            return
        group = group.parent


def _group(root: Path, controller: str) -> str | None:
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        _, names, path = line.split(":", 2)
        wanted = controller.partition(",")[0]
        if names == controller or (wanted and wanted in names.split(",")):
            return path if ".." not in path.split("/") else None
    return None
