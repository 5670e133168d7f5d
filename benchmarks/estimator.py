"""How far the estimates for boards are from published latencies of networks that the calibration did not see.

    python benchmarks/estimator.py PUBLISHED.csv [--write]

Leave one network out: its rows, on every board, are estimated with constants fitted to the others' rows, and with an
interval of the errors that the others make when each of them is left out in turn. --write: fit to all rows and write
the constants that the package ships.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import published_nets
import yaml
from numpy.typing import NDArray
from scipy.optimize import least_squares

from edgepress.targets import profiles
from edgepress.targets.estimate import estimating
from edgepress.targets.estimate.kernels import kernels
from edgepress.targets.estimate.roofline import Efficiency, Load

FOR = {  # boards of the table whose profile has another name
    "jetson-xavier-nx": "jetson-xavier-nx",
    "jetson-orin-nx-16gb": "jetson-orin-nx",
}
# dense, pointwise and grouped convolutions' share of the peak, share of the bandwidth, microseconds for each kernel,
# milliseconds for each inference: what to believe before any row was seen, and how loosely.
BEFORE = (0.5, 0.4, 0.1, 0.6, 10.0, 0.2)
LOOSE, NOISE = 0.7, 0.15  # standard deviations, of logarithms
MATMUL = 0.5  # a matrix times a vector: its memory decides
LEVEL = 0.9
SIZES = ("1x3x224x224", "1x224x224x3", "1x3x640x640")  # what the networks are built for
CONSTANTS = Path(estimating.__file__).with_name("constants.yaml")


@dataclass(frozen=True)
class Row:
    """One published latency of a network that is built here."""

    network: str
    device: str
    precision: str
    ms: float
    source: str


def read(path: Path) -> tuple[list[Row], int]:
    """Rows of which the network is known and the latency is of inference alone; and how many rows there are."""
    with path.open(newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    found = []
    for entry in entries:
        name = published_nets.SAME.get(entry["model"], entry["model"])
        alone = "fps" not in entry["stat"].lower() and entry["stat"] != "p90"
        device = FOR.get(entry["device"], entry["device"])
        if name in published_nets.NETS and alone and device in profiles.names() and entry["input"] in SIZES:
            precision = entry["precision"].partition("-")[0]
            if precision in profiles.load(device).peak_gmacs:
                found.append(Row(name, device, precision, float(entry["latency_ms"]), entry["source"]))
    return found, len(entries)


class Calibration:
    """Fits constants to rows; what a network consists of is counted once."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.loads = {name: Load(kernels(published_nets.build(name))) for name in sorted({row.network for row in rows})}
        self.profiles = {row.device: profiles.load(row.device) for row in rows}

    def estimate(self, row: Row, efficiency: Efficiency) -> float:
        profile = self.profiles[row.device]
        assert profile.bandwidth_gb_s is not None
        return self.loads[row.network].milliseconds(
            efficiency, precision=row.precision,
            peak_gmacs=profile.peak_gmacs[row.precision], bandwidth_gb_s=profile.bandwidth_gb_s,
        )  # fmt: skip

    def error(self, row: Row, efficiency: Efficiency) -> float:
        """Natural logarithm of the estimate over the published latency."""
        return math.log(self.estimate(row, efficiency) / row.ms)

    def fit(self, rows: Sequence[Row]) -> Efficiency:
        """The constants that rows and prior belief agree on best; a row far off counts little."""
        start = np.log(BEFORE)

        def residuals(logs: NDArray[np.float64]) -> NDArray[np.float64]:
            efficiency = _efficiency(logs)
            off = np.array([self.error(row, efficiency) for row in rows]) / NOISE
            return np.concatenate([np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1)), (logs - start) / LOOSE])

        return _efficiency(least_squares(residuals, start).x)

    def left_out(self, rows: Sequence[Row]) -> list[tuple[Row, float]]:
        """Every row with its error under constants that no row of the same network had a part in."""
        found = []
        for network in sorted({row.network for row in rows}):
            efficiency = self.fit([row for row in rows if row.network != network])
            found += [(row, self.error(row, efficiency)) for row in rows if row.network == network]
        return found


def _efficiency(logs: NDArray[np.float64]) -> Efficiency:
    dense, pointwise, grouped, bandwidth, launch, base = np.exp(logs).tolist()
    arithmetic = {"dense": dense, "pointwise": pointwise, "grouped": grouped, "matmul": MATMUL}
    return Efficiency(arithmetic=arithmetic, bandwidth=bandwidth, launch_us=launch, base_ms=base)


def width(errors: Sequence[float]) -> float:
    """Of the interval to either side, as a factor: what nine in ten errors stay below, with one more to come."""
    ordered = sorted(abs(error) for error in errors)
    rank = min(len(ordered), math.ceil(LEVEL * (len(ordered) + 1)))
    return math.exp(ordered[rank - 1])


def held_out(calibration: Calibration, rows: Sequence[Row]) -> list[tuple[Row, float, float]]:
    """Every row with its error and the width of its interval, neither of which saw its network."""
    found = []
    for network in sorted({row.network for row in rows}):
        others = [row for row in rows if row.network != network]
        efficiency = calibration.fit(others)
        factor = width([error for _, error in calibration.left_out(others)])
        found += [(row, calibration.error(row, efficiency), factor) for row in rows if row.network == network]
    return found


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(estimating.units(profiles.load(row.device), row.precision), []).append(row)
    return found


def table(found: Sequence[tuple[Row, float, float]]) -> str:
    lines = [
        "| network | board | precision | published ms | estimated ms | off | within |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, error, factor in sorted(found, key=lambda entry: (entry[0].device, entry[0].precision, entry[0].network)):
        inside = "yes" if abs(error) <= math.log(factor) else "no"
        lines.append(
            f"| {row.network} | {row.device} | {row.precision} | {row.ms:.3g} | {row.ms * math.exp(error):.3g} | "
            f"{100 * (math.exp(error) - 1):+.0f} % | {inside} |"
        )
    return "\n".join(lines)


def summary(found: Sequence[tuple[Row, float, float]]) -> str:
    off = sorted(abs(math.exp(error) - 1) for _, error, _ in found)
    inside = sum(abs(error) <= math.log(factor) for _, error, factor in found)
    factors = sorted(factor for _, _, factor in found)
    return (
        f"{len(found)} rows of {len({row.network for row, _, _ in found})} networks: median error "
        f"{100 * off[len(off) // 2]:.0f} %, in the interval {inside} ({100 * inside / len(found):.0f} %), "
        f"interval to either side: factor {factors[len(factors) // 2]:.2f}"
    )


def constants(calibration: Calibration, rows: Sequence[Row]) -> dict[str, object]:
    efficiency = calibration.fit(rows)
    return {
        "arithmetic": {kind: round(share, 4) for kind, share in efficiency.arithmetic.items()},
        "bandwidth": round(efficiency.bandwidth, 4),
        "launch_us": round(efficiency.launch_us, 3),
        "base_ms": round(efficiency.base_ms, 4),
        "factor": round(width([error for _, error in calibration.left_out(rows)]), 3),
        "rows": len(rows),
        "sources": sorted({row.source for row in rows}),
    }


def main(words: Sequence[str] | None = None, *, say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", type=Path, help="the table of latencies")
    parser.add_argument("--write", action="store_true", help=f"write {CONSTANTS.name}")
    options = parser.parse_args(words)
    rows, everything = read(options.published)
    calibration = Calibration(rows)
    say(f"{len(rows)} of {everything} rows are of networks that are built here and of inference alone.\n")
    found, shipped = [], {}
    for name, group in groups(rows).items():
        here = held_out(calibration, group)
        say(f"## {name}\n\n{table(here)}\n\n{summary(here)}\n")
        found += here
        shipped[name] = constants(calibration, group)
    say(f"All: {summary(found)}")
    if options.write:
        head = "# Written by benchmarks/estimator.py --write, from published latencies; sources are listed by group.\n"
        CONSTANTS.write_text(head + yaml.safe_dump(shipped, sort_keys=False, width=120), encoding="utf-8")


if __name__ == "__main__":
    main()
