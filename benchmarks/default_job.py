"""How long the built-in example takes, by stage: fresh runs of the command, one after the other."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pairs import machine, spread


def once(folder: Path) -> tuple[float, dict[str, float]]:
    """Seconds of the whole command, and of each stage."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "edgepress", "--out", str(folder), "--quiet"], check=True, capture_output=True
    )
    seconds = time.perf_counter() - began
    report = json.loads((folder / "report.json").read_text())
    stages = {stage["name"]: stage["seconds"] for stage in report["stages"]}
    return seconds, {**stages, "start, data, report": seconds - sum(stages.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run")
    options = parser.parse_args()
    where = machine()
    runs = []
    for _ in range(1 if options.quick else 5):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(once(Path(folder) / "out"))
    totals = [total for total, _ in runs]
    print(f"{len(runs)} fresh runs of `compress`, {where}\n")
    print("| stage | seconds, median (range) | share |\n|---|---|---|")
    for name in runs[0][1]:
        values = [stages[name] for _, stages in runs]
        print(f"| {name} | {spread(values)} | {100 * statistics.median(values) / statistics.median(totals):.0f} % |")
    print(f"| **whole command** | {spread(totals)} | |")


if __name__ == "__main__":
    main()
