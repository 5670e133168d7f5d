"""Is a figure that came over ssh the figure that this machine gives when it is asked directly?

python benchmarks/remote.py [--pairs 10] [--runtime onnxruntime]

Starts an ssh server on the loopback for this user alone (sshd must be installed), and times one engine through it and
directly, one after the other and in changing order. Prints the ratio of the two medians with its spread as a Markdown
table, then the same as JSON. The goal is 3 %. --quick tries it with tiny settings.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pairs import machine

from edgepress.targets import model_input, practice, profiles
from edgepress.targets.jobs import Engine
from edgepress.targets.measure import measure
from edgepress.targets.profiles import Profile
from edgepress.targets.remote.address import Address
from edgepress.targets.remote.measuring import measure_on, meet

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/targets"))  # the server that the tests start
from sshd import serve

MODEL = {"blocks": 12, "channels": 64, "side": 16}
SMALL = {"blocks": 4, "channels": 32, "side": 16}
GOAL = 0.03


def main() -> int:
    """Exit code 1: the goal was missed."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="edgepress-remote-") as folder:
        path = practice.write(Path(folder) / "model.onnx", **(SMALL if options.quick else MODEL))
        engine = Engine(name="model", path=path, runtime=options.runtime, precision="fp32")
        with serve(Path(folder) / "sshd") as server:
            os.environ["EDGEPRESS_SSH_CONFIG"] = str(server.config)
            address = Address.parse(server.address)
            rows = [pair(engine, address, number, options) for number in range(options.pairs)]
    ratios = [row["over_ssh_ms"] / row["here_ms"] for row in rows]
    middle = statistics.median(ratios)
    found = {
        "runtime": options.runtime,
        "here, ms": f"{statistics.median(row['here_ms'] for row in rows):.3f}",
        "over ssh, ms": f"{statistics.median(row['over_ssh_ms'] for row in rows):.3f}",
        "ratio, median (range)": f"{middle:.4f} ({min(ratios):.4f} to {max(ratios):.4f})",
        "pairs": len(rows),
    }
    print(f"{machine()}; each timed for {options.seconds:g} s\n")
    print(f"| {' | '.join(found)} |\n|{'---|' * len(found)}\n| {' | '.join(map(str, found.values()))} |\n")
    print(json.dumps({"rows": rows, "median": middle, "goal": GOAL, "met": abs(middle - 1) <= GOAL}))
    return 0 if options.quick or abs(middle - 1) <= GOAL else 1


def pair(engine: Engine, address: Address, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both ways, the first of them by turns."""
    profile = profiles.load(f"{options.runtime}-cpu")
    image = model_input.read(engine.path).random()[:1]
    ways = {
        "here_ms": lambda: here(engine, image, options),
        "over_ssh_ms": lambda: there(engine, address, image, profile, options, number),
    }
    order = list(ways) if number % 2 == 0 else list(reversed(ways))
    return {name: ways[name]() for name in order} | {"first": order[0]}


def here(engine: Engine, image: NDArray[Any], options: argparse.Namespace) -> float:
    found = measure(
        [engine], inputs={"test": image}, seconds=options.seconds, all_cores=False, memory=False, energy=False
    )
    latency = found.figures[engine.name].latency
    assert latency is not None, found.figures[engine.name].failed
    return latency.median_ms


def there(
    engine: Engine,
    address: Address,
    image: NDArray[Any],
    profile: Profile,
    options: argparse.Namespace,
    seed: int,
) -> float:
    board = meet(address, profile, python=sys.executable)
    found = measure_on(board, [engine], profile=profile, inputs={"test": image}, seconds=options.seconds, seed=seed)
    latency = found.figures[engine.name].latency
    assert latency is not None, found.figures[engine.name].failed
    return latency.median_ms


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing, each way")
    parser.add_argument("--runtime", choices=["onnxruntime", "openvino"], default="onnxruntime")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.seconds = 2, 0.3
    return options


if __name__ == "__main__":
    sys.exit(main())
