"""ResNet-56 on CIFAR-10: pruned, quantised and exported by one job, beside tools that only quantise the same teacher.

python benchmarks/whole_chain.py --data imagefolder:CIFAR --weights FILE [--net resnet56] [--speedup 6.5]
    [--epochs 20] [--loss YAML] [--compile] [--runtimes openvino,onnxruntime] [--seeds 0] [--precision bf16]
    [--json FILE]

One job of this project for each runtime, for `budget: {speedup: ..., accuracy_drop: 0.5}`; the recovery after pruning
has --epochs epochs with the teacher, by the losses of --loss or the usual ones; what it says of --views variations of
each image is kept. Its peers get the teacher as ONNX and 256 training images:
onnxruntime.quantization.quantize_static by its defaults and as ONNX Runtime recommends for its CPU, and nncf.quantize
where it is installed. Then everything is timed in one run, in turn, both runtimes together, on one pinned thread, and
answers all test images there; those chose nothing. A peer's file that a runtime refuses is left out, with the reason.
Goal: 6 times as fast as the teacher in float32, twice as fast as the fastest peer, at most 0.5 points of accuracy lost.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from peers import nncf_file, static
from quantization import CALIBRATION, IMAGENET, NETS, answers, faster, some, written
from seeds import Results, mean_sd, parser, seeds_of, table

from edgepress import compress
from edgepress.stages.data import open_data
from edgepress.stages.settings import DataSettings
from edgepress.stages.weights import load_weights_
from edgepress.targets.measure import Engine, Measurement, measure
from edgepress.targets.statistics import paired_drop

EXAMPLES = Path(__file__).parent.parent / "examples"
RUNTIMES = ("openvino", "onnxruntime")
PEERS = ("ORT default", "ORT u8s8", "nncf")
TEACHER, SHIPPED = "teacher, float32", "edgepress, shipped"
HURRIED = {"profile.seconds": 0.5, "profile.memory": False, "profile.layers": False, "profile.all_cores": False}
DROP, OVER_FLOAT, OVER_PEER = 0.5, 6.0, 2.0  # the goals: points, and times as fast


def main() -> None:
    options = arguments()
    with contextlib.ExitStack() as stack:
        kept = options.keep or (options.json.with_suffix("") if options.json else None)
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whole-")))
        results = Results(file=options.json, settings={
            "net": options.net, "speedup": options.speedup, "epochs": options.epochs, "views": options.views,
            "lr": options.lr, "training": options.training, "precision": options.precision,
            "runtimes": options.runtimes, "quick": options.quick, **({"loss": options.loss} if options.loss else {}),
        })  # fmt: skip
        for seed in seeds_of(options):
            results.run("chain", seed, partial(chain, folder, options, seed))
    print(f"{results.where}\n")
    found = results.by_name()["chain"]
    for runtime in options.runtimes:
        print(f"{options.net} in {runtime}, {next(iter(found.values()))['images']:.0f} test images\n")
        print(f"{shown(results, runtime)}\n\n{verdict(found, runtime)}\n")


def chain(place: Path, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Ours for every runtime, the peers, and one measurement of all. place: a folder for the jobs."""
    settings = DataSettings(source=options.data, **IMAGENET)
    # divided as the jobs divide it: what chose in one of them judges nothing here
    data = open_data(settings, seed=seed, cache=place / "images", given_weights=True)
    net = NETS[options.net](len(data.classes))
    load_weights_(net, options.weights)
    images, labels = some(data, 100 if options.quick else len(data.test), seed=seed)
    calibration, _ = some(data, CALIBRATION, split="train", seed=seed)
    engines: dict[str, list[Engine]] = {}
    with tempfile.TemporaryDirectory(prefix="chain-") as name:
        for runtime in options.runtimes:
            folder = Path(name) / runtime
            folder.mkdir()
            files = {TEACHER: written(net.eval(), folder / "float.onnx", images[:1])}
            files |= static(files[TEACHER], calibration.numpy(), folder)
            files |= nncf_file(files[TEACHER], calibration.numpy(), folder, runtime)
            engines[runtime] = [
                engine(kind, path, runtime, "fp32" if kind == TEACHER else "int8") for kind, path in files.items()
            ] + ours(
                runtime,
                options,
                place / f"{options.net}-{runtime}-{seed}",
                seed,
                classes=len(data.classes),
            )
        found = measure(
            [one for several in engines.values() for one in several], inputs={"test": images.numpy()},
            seconds=2.0 if options.quick else 30.0, all_cores=False, memory=False, energy=False, seed=seed,
        )  # fmt: skip
    figures: dict[str, float] = {"images": len(labels), "unreliable": float(found.unreliable is not None)}
    for runtime, several in engines.items():
        figures |= compared(found, runtime, [one.name for one in several], labels.numpy())
    return figures


def ours(runtime: str, options: argparse.Namespace, folder: Path, seed: int, *, classes: int) -> list[Engine]:
    """What one job makes: the variant that it ships, and the others that came after the teacher."""
    result = compress(
        model=f"{EXAMPLES / 'my_model.py'}:{options.net}", weights=options.weights, data=options.data,
        target=f"{runtime}-cpu", seed=seed, out=folder,
        budget={"speedup": options.speedup, "accuracy_drop": 100.0 if options.quick else DROP},
        settings={
            "model.arguments": {"num_classes": classes},
            "data.mean": list(IMAGENET["mean"]), "data.std": list(IMAGENET["std"]), "data.augment": ["flip", "crop"],
            "training_precision": options.precision, "prune.epochs": options.epochs,
            "prune.lr": options.lr, "prune.optimizer": "sgd", "prune.views": options.views, "prune.cache": 4,
            "prune.compile": options.compile, "quantize.epochs": options.training, "quantize.lr": options.lr / 20,
            **({"prune.loss": options.loss} if options.loss else {}), **(HURRIED if options.quick else {}),
        },
    )  # fmt: skip
    others = [one for one in result.report.variants[1:] if one.name != result.chosen.name]  # the baseline stands first
    return [
        engine(SHIPPED, result.path, runtime, result.chosen.precision),
        *(engine(f"edgepress, {one.name}", folder / one.file, runtime, one.precision) for one in others),
    ]


def engine(kind: str, path: Path, runtime: str, precision: str) -> Engine:
    return Engine(name=f"{runtime}: {kind}", path=path, runtime=runtime, precision=precision)


def compared(
    found: Measurement, runtime: str, names: Iterable[str], labels: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> dict[str, float]:
    """Accuracy and speed of each, beside the teacher in the same runtime, and what is shipped beside each peer."""
    teacher, shipped = f"{runtime}: {TEACHER}", f"{runtime}: {SHIPPED}"
    figures: dict[str, float] = {}
    right = {}
    for name in names:
        if found.figures[name].outputs is None and name not in (teacher, shipped):
            print(f"{name} is left out: {found.figures[name].failed}", file=sys.stderr)
            continue
        right[name] = answers(found, name).argmax(1) == labels
    for name, value in right.items():
        latency = found.figures[name].latency
        assert latency is not None, f"{name} answered and was not timed"
        drop, low, high = paired_drop(right[teacher], value)
        figures |= {f"{name} accuracy": 100 * float(value.mean()), f"{name} ms": latency.median_ms}
        figures |= {f"{name} drop": drop, f"{name} drop low": low, f"{name} drop high": high}
        figures |= faster(found, name, teacher) | faster(found, shipped, name)
    return figures


def shown(results: Results, runtime: str) -> str:
    """A row for each network: means and deviations over the seeds, an interval of a single one."""
    found = results.by_name()["chain"]
    names = {
        figure.removesuffix(" accuracy"): None
        for figures in found.values()
        for figure in figures
        if figure.startswith(f"{runtime}: ") and figure.endswith(" accuracy")
    }
    rows = []
    for name in names:
        runs = [figures for figures in found.values() if f"{name} accuracy" in figures]
        rows.append([
            name.removeprefix(f"{runtime}: "),
            *(several(runs, f"{name} {what}", digits) for what, digits in (("accuracy", 2), ("drop", 2), ("ms", 4))),
            several(runs, f"{name} over {runtime}: {TEACHER}", 2),
            several(runs, f"{runtime}: {SHIPPED} over {name}", 2), len(runs),
        ])  # fmt: skip
    head = ["", "accuracy, %", "points lost (95 %)", "ms", "times as fast as the teacher (95 %)",
            "shipped is faster by (95 %)", "n"]  # fmt: skip
    return table(head, rows)


def several(runs: list[Mapping[str, float]], figure: str, digits: int) -> str:
    """One run with its own interval where it has one; of more their mean and standard deviation."""
    text = mean_sd([figures[figure] for figures in runs], digits)
    low, high = f"{figure} low", f"{figure} high"
    if len(runs) == 1 and low in runs[0]:
        text += f" ({runs[0][low]:.{digits}f} to {runs[0][high]:.{digits}f})"
    return text


def verdict(found: Mapping[int, Mapping[str, float]], runtime: str) -> str:
    """The goals, seed by seed."""
    lines = []
    for seed, figures in found.items():
        shipped = f"{runtime}: {SHIPPED}"
        over = {
            peer: figures[f"{shipped} over {runtime}: {peer}"] for peer in PEERS if f"{runtime}: {peer} ms" in figures
        }
        if not over:
            lines.append(f"seed {seed}: no peer's file runs here")
            continue
        best = min(over, key=lambda peer: over[peer])
        drop, times = figures[f"{shipped} drop"], figures[f"{shipped} over {runtime}: {TEACHER}"]
        lines.append(
            f"seed {seed}: {times:.2f} times the teacher (goal {OVER_FLOAT:g}: {said(times >= OVER_FLOAT)}), "
            f"{over[best]:.2f} times {best} (goal {OVER_PEER:g}: {said(over[best] >= OVER_PEER)}), "
            f"{drop:.2f} points lost (goal {DROP:g}: {said(drop <= DROP)})"
            + (", the machine was too noisy for a claim" if figures["unreliable"] else "")
        )
    return "\n".join(lines)


def said(is_met: bool) -> str:
    return "met" if is_met else "missed"


def arguments() -> argparse.Namespace:
    made = parser(__doc__, data="imagefolder:FOLDER")
    made.add_argument("--weights", type=Path, required=True, metavar="FILE", help="of the teacher")
    made.add_argument("--net", choices=tuple(NETS), default="resnet56")
    made.add_argument("--speedup", type=float, default=6.5, help="the budget, over float32 (default: 6.5)")
    made.add_argument("--epochs", type=int, default=20, help="of recovery after pruning (default: 20)")
    made.add_argument("--views", type=int, default=4, help="variations of each image in recovery (default: 4)")
    made.add_argument("--compile", action="store_true", help="let torch.compile speed up the recovery")
    made.add_argument("--lr", type=float, default=0.05, help="of recovery (default: 0.05)")
    made.add_argument(
        "--loss", type=yaml.safe_load, metavar="YAML",
        help="of recovery, as in a recipe: '{ce: 0.1, kd: {weight: 0.9, temperature: 4}, at: 1000}'",
    )  # fmt: skip
    made.add_argument("--training", type=int, default=1, help="epochs in INT8, where calibration misses the budget")
    made.add_argument(
        "--runtimes", type=lambda text: tuple(text.split(",")), default=RUNTIMES, help=f"default: {','.join(RUNTIMES)}"
    )
    options = made.parse_args()
    if options.quick:
        options.epochs, options.views, options.training, options.speedup = 1, 1, 1, 1.5
    return options


if __name__ == "__main__":
    main()
