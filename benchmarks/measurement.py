"""Is the measurement right? Engines against themselves, a known difference, other tools, and /proc.

python benchmarks/measurement.py aa          the same engine under two names: how often is a difference claimed?
python benchmarks/measurement.py delta       5 % more work: how often is it found, and is it measured as 5 %?
python benchmarks/measurement.py reference   medians against benchmark_app and a plain ONNX Runtime loop, alternately
python benchmarks/measurement.py memory      peak memory against /proc as it is read from outside

Each prints a Markdown table, then the same as JSON. --quick tries it with tiny settings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from memory_outside import Outside
from pairs import machine

from edgepress.targets import practice
from edgepress.targets.cpu import usable_cpus
from edgepress.targets.jobs import Engine
from edgepress.targets.measure import measure
from edgepress.targets.repeating import Comparison, Repeated, compare_again
from edgepress.targets.statistics import wilson

RUNTIMES = ("onnxruntime", "openvino")
MODELS: dict[str, dict[str, int]] = {
    "small": {"blocks": 4, "channels": 32, "side": 16},
    "middle": {"blocks": 20, "channels": 64, "side": 16},
    "wide": {"blocks": 5, "channels": 512, "side": 4},  # 47 MB of weights, more than caches hold
}
DEFAULT_SECONDS = 8.0  # what the profile stage takes unless told otherwise
LONG_SECONDS = 30.0
BLOCKS = (20, 21)

# A loop that shares no code with edgepress: the process is pinned and warmed up, then every call is timed.
PLAIN_LOOP = """
import os, statistics, sys, time
import numpy, onnxruntime
path, seconds, processor = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
os.sched_setaffinity(0, {processor})
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
shape = [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape]
image = numpy.random.default_rng(0).standard_normal(shape).astype(numpy.float32)
name, times = session.get_inputs()[0].name, []
for _ in range(100):
    session.run(None, {name: image})
end = time.perf_counter() + seconds
while time.perf_counter() < end:
    before = time.perf_counter()
    session.run(None, {name: image})
    times.append(time.perf_counter() - before)
print(1000 * statistics.median(times))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(BENCHMARKS))
    parser.add_argument("--runs", type=int, help="comparisons of each row (default: 200 for aa, 40 for delta, else 5)")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="of timing for each (default: 8)")
    parser.add_argument("--model", choices=sorted(MODELS), action="append", help="only this one")
    parser.add_argument("--runtime", choices=RUNTIMES, action="append", help="only this one")
    parser.add_argument("--json", metavar="FILE", help="write the JSON there too, after each row")
    parser.add_argument("--quick", action="store_true", help="two runs of half a second")
    options = parser.parse_args()
    runs, benchmark = BENCHMARKS[options.what]
    options.runs = options.runs or runs
    if options.quick:
        options.runs, options.seconds = 2, 0.5
    here = machine()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for row in benchmark(options, Path(folder)):
            rows.append(row)
            if options.json:
                Path(options.json).write_text(json.dumps({"machine": here, "rows": rows}, indent=1) + "\n")
    print(f"{options.what}: {here}\n")
    print(_table([{key: value for key, value in row.items() if key != "raw"} for row in rows]))
    print("\n" + json.dumps({"machine": here, "rows": rows}))


def aa(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """One file, two names."""
    for name, runtime in _cases(options):
        path = practice.write(folder / f"{name}.onnx", **MODELS[name])
        engine = _engine(path, runtime)
        found = compare_again(
            engine, engine, image=_image(name), runs=options.runs, seconds=options.seconds, told=_tell(name, runtime)
        )
        facts = found.facts()
        values = [value for value, _, _ in facts["ratios"]]
        yield {
            **_head(name, runtime, facts),
            "no difference claimed": _share(options.runs - found.claimed, options.runs),
            "ratios": f"{min(values):.4f} to {max(values):.4f}",
            "resolves, %": f"{facts['resolution_percent']:.1f}",
            "raw": facts,
        }


def delta(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """20 blocks against 21, all alike. What the ratio really is comes from one long measurement in five processes."""
    for name, runtime in _cases(options):
        fewer, more = (
            _engine(practice.write(folder / f"{name}-{blocks}.onnx", **{**MODELS[name], "blocks": blocks}), runtime)
            for blocks in BLOCKS
        )
        image, told = _image(name), _tell(name, runtime)
        long = 1.0 if options.quick else LONG_SECONDS
        true = compare_again(more, fewer, image=image, runs=2 if options.quick else 5, seconds=long, told=told)
        found = compare_again(more, fewer, image=image, runs=options.runs, seconds=options.seconds, told=told)
        right = sum(one.claims and one.ratio.value > 1 for one in found.comparisons)
        truth = statistics.median(_values(true))
        held = sum(one.ratio.low <= truth <= one.ratio.high for one in found.comparisons)
        yield {
            **_head(name, runtime, found.facts()),
            "by blocks": f"{BLOCKS[1] / BLOCKS[0]:.3f}",
            "long measurement": f"{truth:.3f} ({min(_values(true)):.3f} to {max(_values(true)):.3f})",
            "measured": f"{statistics.median(_values(found)):.3f}",
            "found slower": _share(right, options.runs),
            "interval holds the long one": f"{held} of {options.runs}",
            "raw": {"long": true.facts(), "runs": found.facts()},
        }


def reference(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """One thread on the same CPU, batch 1, alternately.

    benchmark_app takes the time inside the runtime, edgepress around the call that gives the answer as an array: that
    is about 5 us more, whatever the model.
    """
    for name, runtime in _cases(options):
        path = practice.write(folder / f"{name}.onnx", **MODELS[name], batch=1)
        other = benchmark_app if runtime == "openvino" else plain_loop
        pairs = []
        for number in range(options.runs):
            ours = _median_ms(_engine(path, runtime), name, seconds=options.seconds)
            pairs.append((ours, other(path, seconds=options.seconds)))
            print(f"{name} {runtime} {number + 1}: {pairs[-1]}", file=sys.stderr)
        ratios = [ours / theirs for ours, theirs in pairs]
        yield {
            "model": name,
            "runtime": runtime,
            "runs": len(pairs),
            "against": other.__name__,
            "edgepress, ms": f"{statistics.median(ours for ours, _ in pairs):.4f}",
            "other, ms": f"{statistics.median(theirs for _, theirs in pairs):.4f}",
            "ratio, median (range)": f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            "difference, us": f"{1000 * statistics.median(ours - theirs for ours, theirs in pairs):.0f}",
            "raw": pairs,
        }


def memory(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """What the measuring process says of itself, and what /proc/PID/status says of it to others."""
    for name, runtime in _cases(options):
        path = practice.write(folder / f"{name}.onnx", **MODELS[name])
        pairs = []
        for _ in range(options.runs):
            with Outside() as outside:
                found = measure(
                    [_engine(path, runtime)], inputs={"image": _image(name)}, seconds=0.1, all_cores=False, energy=False
                )
            figures = found.figures["engine"]
            assert figures.memory_mb is not None, figures.failed
            pairs.append((figures.memory_mb["peak"], outside.last_peak_mb))
        ratios = [inside / seen for inside, seen in pairs]
        yield {
            "model": name,
            "runtime": runtime,
            "runs": len(pairs),
            "peak, MiB": f"{statistics.median(inside for inside, _ in pairs):.1f}",
            "from outside, MiB": f"{statistics.median(seen for _, seen in pairs):.1f}",
            "ratio, median (range)": f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            "raw": pairs,
        }


def benchmark_app(path: Path, *, seconds: float) -> float:
    """Median milliseconds as OpenVINO's own tool prints them: in us below a millisecond."""
    tool = shutil.which("benchmark_app") or str(Path(sys.executable).with_name("benchmark_app"))
    # -infer_precision: it would take bfloat16 where the CPU has it. Pinned from outside, to the CPU that we use.
    words = [tool, "-m", str(path), "-d", "CPU", "-hint", "none", "-api", "sync", "-nthreads", "1", "-nstreams", "1"]
    words += ["-infer_precision", "f32", "-t", str(max(1, round(seconds)))]
    with _pinned():
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = re.search(r"Median:\s+([\d.]+) (us|ms|s)\b", done.stdout)
    assert found is not None, done.stdout
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def plain_loop(path: Path, *, seconds: float) -> float:
    words = [sys.executable, "-c", PLAIN_LOOP, str(path), str(seconds), str(usable_cpus()[-1])]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@contextlib.contextmanager
def _pinned() -> Iterator[None]:
    """What starts meanwhile runs on the CPU that edgepress pins its engines to."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {usable_cpus()[-1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cases(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for name in options.model or MODELS:
        for runtime in options.runtime or RUNTIMES:
            yield name, runtime


def _engine(path: Path, runtime: str) -> Engine:
    return Engine(name="engine", path=path, runtime=runtime, precision="fp32")


def _image(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    side = MODELS[name]["side"]
    return np.random.default_rng(0).standard_normal((1, 3, side, side)).astype(np.float32)


def _median_ms(engine: Engine, name: str, *, seconds: float) -> float:
    found = measure(
        [engine], inputs={"image": _image(name)}, seconds=seconds, all_cores=False, memory=False, energy=False
    )
    latency = found.figures["engine"].latency
    assert latency is not None, found.figures["engine"].failed
    return latency.median_ms


def _tell(name: str, runtime: str) -> Callable[[int, Comparison], None]:
    def told(number: int, found: Comparison) -> None:
        one = found.ratio
        print(f"{name} {runtime} {number}: {one.value:.4f} ({one.low:.4f} to {one.high:.4f})", file=sys.stderr)

    return told


def _values(found: Repeated) -> list[float]:
    return [one.ratio.value for one in found.comparisons]


def _head(name: str, runtime: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": name,
        "runtime": runtime,
        "median, ms": f"{facts['median_ms']:.3f}",
        "runs": facts["runs"],
        "s each": f"{facts['seconds_each']:.1f}",
    }


def _share(count: int, of: int) -> str:
    low, high = wilson(count, of)
    return f"{count} of {of} ({low:.1f} to {high:.1f} %)"


def _table(rows: list[dict[str, Any]]) -> str:
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(str(value) for value in row.values())} |" for row in rows)])


Benchmark = Callable[[argparse.Namespace, Path], Iterator[dict[str, Any]]]
BENCHMARKS: dict[str, tuple[int, Benchmark]] = {
    "aa": (200, aa), "delta": (40, delta), "reference": (5, reference), "memory": (5, memory),
}  # fmt: skip

if __name__ == "__main__":
    main()
