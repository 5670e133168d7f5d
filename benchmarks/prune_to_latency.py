"""Does pruning reach a measured latency, and what does it cost in accuracy beside pruning that does not measure?

python benchmarks/prune_to_latency.py hit [--only NAME,...] [--percent 75,50,33] [--json FILE]
python benchmarks/prune_to_latency.py accuracy --data imagefolder:CIFAR --weights FOLDER [--seeds 0,1,2] [--json FILE]
python benchmarks/prune_to_latency.py tables [--only NAME,...] [--json FILE]

hit: for each network, runtime and target (a share of the float latency) one job with `budget: {speedup: ...}`; what it
shipped is timed again beside the baseline in fresh processes with another seed. The networks are the MNIST network of
examples/mnist_nets.py, ResNet-20 and ResNet-56 of examples/my_model.py, and MobileNetV2 and ResNet-18 at 224 pixels,
with random weights and images: how fast a network is does not depend on what it has learned. Where a target is out of
reach the row says so.

accuracy: ResNet-20 and ResNet-56 on CIFAR-10, pruned to the same measured share of the float latency by five methods
and recovered alike (the original as teacher, --epochs): `edgepress` (measured tables, measured harm), `without blocks`
(the same, channels only), `macs` (the same, with multiply-accumulates in place of the tables), `global`
(torch-pruning's global ranking) and `uniform` (every layer by the same share). The last two have one ratio: of all
steps of 0.05, with channels in the profile's multiples and freely, the network that keeps the most multiply-accumulates
in no more than 1.02 times the share of the float latency that edgepress reached.

tables: how well the tables foretell the time of whole pruned networks (drawn at random), and how well the sum of layers
that are timed alone does. All timings: one thread, in turn with the baseline, in processes of their own.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import seeds
import torch
from pairs import machine
from prune_rivals import EXAMPLES, METHODS, SAME, accuracy, profile_file
from prune_tables import tables_once
from torch import nn

from edgepress import compress
from edgepress.targets.measure import Engine, measure
from edgepress.targets.statistics import ratio

RUNTIMES = ("openvino", "onnxruntime")
WITHIN = 0.03  # of the target: a latency above it by more is a miss


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network with its input. build: with random weights."""

    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]


def networks() -> dict[str, Net]:
    sys.path.insert(0, str(EXAMPLES))
    import latency_nets as large
    import mnist_nets
    import my_model

    small, big, one = (3, 32, 32), (3, 224, 224), (1, 28, 28)
    makers: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
        "mnist": (mnist_nets.student, one),
        "resnet20": (my_model.resnet20, small),
        "resnet56": (my_model.resnet56, small),
        "mobilenetv2": (lambda: large.MobileNetV2(10), big),
        "resnet18": (lambda: large.ResNet18(10), big),
    }

    def builder(make_one: Callable[[], nn.Module], shape: tuple[int, int, int]) -> Callable[[], nn.Module]:
        def build() -> nn.Module:
            torch.manual_seed(0)
            return large.settled(make_one(), shape)

        return build

    return {name: Net(build=builder(*parts), shape=parts[1]) for name, parts in makers.items()}


def hit(net: Net, runtime: str, percent: int, folder: Path, *, seed: int, seconds: float) -> dict[str, float]:
    """One job, and what it shipped timed again."""
    generator = torch.Generator().manual_seed(seed)
    draw = {
        name: (torch.randint(0, 256, (count, *net.shape), generator=generator, dtype=torch.uint8),
               torch.arange(count) % 10)
        for name, count in (("train", 64), ("test", 40))
    }  # fmt: skip
    result = compress(
        model=net.build(), data=draw, target=str(profile_file(runtime, folder)), seed=seed, out=folder / "out",
        quiet=True, budget={"speedup": 100 / percent, "accuracy_drop": 100},
        settings={
            "stages": ["prune", "export", "profile"], "prune.epochs": 0, "profile.seconds": seconds,
            "profile.all_cores": False, "profile.memory": False, "profile.layers": False,
        },
    )  # fmt: skip
    stage = next(one for one in result.report.stages if one.name == "prune")
    found = stage.metrics["to_budget"]
    shipped = next(one for one in result.report.variants if one.name == "pruned")
    suffix = ".onnx" if runtime == "onnxruntime" else ".xml"
    again = measure(
        [
            Engine(name=name, path=folder / "out" / "models" / f"{name}{suffix}", runtime=runtime, precision="fp32")
            for name in ("baseline", "pruned")
        ],
        inputs={"sample": np.zeros((1, *net.shape), dtype=np.float32)},
        seconds=seconds, all_cores=False, memory=False, energy=False, seed=seed + 1,
    )  # fmt: skip
    before, after = (again.figures[name].latency for name in ("baseline", "pruned"))
    assert before is not None
    assert after is not None
    times = ratio(before, after)
    return {
        "target": percent / 100,
        "reported": 1 / shipped.speedup.value if shipped.speedup else float("nan"),
        "again": 1 / times.value,
        "again_low": 1 / times.high,
        "again_high": 1 / times.low,
        "baseline_ms": before.median_ms,
        "trials": len(found["trials"]),
        "first_error": found["trials"][0]["predicted"] / found["trials"][0]["seen"]["share"] - 1,
        "kept": found["importance_kept"],
        "blocks_gone": sum(width == 0 for width in found["widths"].values()),
        "reached": float(found["met"]),
        "floor": float(found["why_not_met"] is not None and "at the most" in found["why_not_met"]),
        "search_seconds": stage.seconds,
        "unreliable": float(again.unreliable is not None),
    }


def hit_table(found: seeds.Results) -> str:
    rows = []
    for name, by_seed in found.by_name().items():
        for figures in by_seed.values():
            share, limit = figures["again"], figures["target"]
            said = "hit" if share <= limit * (1 + WITHIN) else "out of reach" if figures["floor"] else "missed"
            interval = f"{100 * figures['again_low']:.1f} to {100 * figures['again_high']:.1f}"
            rows.append([
                name, f"{figures['baseline_ms']:.3g}", f"{100 * limit:.0f}", f"{100 * figures['reported']:.1f}",
                f"{100 * share:.1f} ({interval})", f"{100 * (share / limit - 1):+.1f}", f"{figures['trials']:.0f}",
                f"{100 * figures['first_error']:+.1f}", f"{figures['blocks_gone']:.0f}",
                f"{figures['search_seconds']:.0f}", said,
            ])  # fmt: skip
    head = ["network, runtime, target", "float, ms", "target, %", "reported, %", "again, % (95 %)", "off target, %",
            "trials", "tables were off by, %", "blocks gone", "search, s", ""]  # fmt: skip
    return seeds.table(head, rows)


def accuracy_table(found: seeds.Results) -> str:
    rows = []
    for name, by_seed in found.by_name().items():
        ours = found.values(f"{name.rpartition(', ')[0]}, edgepress", "recovered")
        columns = {
            key: [figures[key] for figures in by_seed.values()] for key in ("share", "pruned", "recovered", "met")
        }
        theirs = found.values(name, "recovered")
        rows.append([
            name, f"{100 * statistics.mean(columns['share']):.1f}", seeds.mean_sd(columns["pruned"]),
            seeds.mean_sd(columns["recovered"]), "" if ours == theirs else seeds.difference(ours, theirs),
            "yes" if all(columns["met"]) else "no", len(by_seed),
        ])  # fmt: skip
    head = ["network, runtime, target, method", "time, % of float", "pruned, %", "recovered, %",
            "edgepress is better by (95 %)", "reached", "seeds"]  # fmt: skip
    return seeds.table(head, rows)


def tables_table(found: seeds.Results) -> str:
    rows = [
        [name, *(f"{figures[key]:.1f}" for key in ("tables", "layers alone", "macs")), f"{figures['networks']:.0f}"]
        for name, by_seed in found.by_name().items()
        for figures in by_seed.values()
    ]
    head = ["network, runtime", "whole-network tables, % off (rms)", "layers alone, % off", "macs, % off", "networks"]
    return seeds.table(head, rows)


def once(net: Net, runtime: str, percent: int, seed: int, options: Any) -> dict[str, float]:
    """One row of the parts that need no data."""
    with tempfile.TemporaryDirectory(prefix="prune-") as folder:
        if options.part == "tables":
            return tables_once(net.build, net.shape, runtime, Path(folder), seed=seed)
        seconds = 1.0 if options.quick else options.seconds
        return hit(net, runtime, percent, Path(folder), seed=seed, seconds=seconds)


def compare(found: seeds.Results, title: str, seed: int, folder: Path, options: Any) -> None:
    """A row for each method; those with one ratio come after edgepress, whose measured time is their limit."""
    name, runtime, percent = title.split(", ")
    most: float | None = None
    for method in options.methods.split(","):
        do = functools.partial(
            accuracy, method, name, runtime, options, folder, seed=seed, percent=int(percent), most=most
        )  # fmt: skip
        figures = found.run(f"{title}, {method}", seed, do)
        most = SAME * figures["share"] if method == METHODS[0] else most


def main() -> None:
    parser = seeds.parser(__doc__)
    parser.add_argument("part", choices=("hit", "accuracy", "tables"))
    parser.add_argument("--percent", default="75,50,33", help="targets, in per cent of the float latency")
    parser.add_argument("--runtimes", default=",".join(RUNTIMES), help="default: both")
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing for each final measurement (default: 6)")
    parser.add_argument("--data", metavar="SOURCE", help="CIFAR-10 as a folder of images, for the accuracies")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="with resnetNN-cifar10jpeg.safetensors")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"default: {','.join(METHODS)}")
    parser.add_argument("--epochs", type=int, default=4, help="of recovery (default: 4)")
    parser.add_argument("--images", type=int, default=50000, help="of CIFAR-10, at most")
    options = parser.parse_args()
    if options.part == "accuracy" and not (options.data and options.weights):
        sys.exit("accuracy needs --data and --weights")
    if (methods := options.methods.split(","))[0] != METHODS[0] or not set(methods) <= set(METHODS):
        sys.exit(f"--methods takes some of {', '.join(METHODS)}; the first must be among them, as it sets the time")
    nets = networks()
    small = [name for name in nets if name in ("resnet20", "resnet56")]
    names = seeds.wanted(options, small if options.part == "accuracy" else list(nets))
    percents = [int(one) for one in options.percent.split(",")]
    decides = {"part": options.part, "quick": options.quick}
    if options.part == "accuracy":
        decides |= {"epochs": options.epochs, "images": options.images, "precision": options.precision}
    found = seeds.Results(file=options.json, settings=decides)
    chosen = seeds.seeds_of(options) if options.part == "accuracy" or options.seeds else (0,)
    folder = options.keep or (options.json.with_suffix("") if options.json else Path(tempfile.mkdtemp(prefix="prune-")))
    folder.mkdir(parents=True, exist_ok=True)
    for seed in chosen:
        for name in names:
            for runtime in options.runtimes.split(","):
                for percent in percents[:1] if options.part == "tables" else percents:
                    title = f"{name}, {runtime}" if options.part == "tables" else f"{name}, {runtime}, {percent}"
                    if options.part == "accuracy":
                        compare(found, title, seed, folder, options)
                    else:
                        found.run(title, seed, functools.partial(once, nets[name], runtime, percent, seed, options))
    print(f"{machine()}\n")
    print({"hit": hit_table, "accuracy": accuracy_table, "tables": tables_table}[options.part](found))


if __name__ == "__main__":
    main()
