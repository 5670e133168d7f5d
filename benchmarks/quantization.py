"""INT8 as the runtime wants it: 7 bits without VNNI, what a training step costs, and the peers' defaults.

python benchmarks/quantization.py --data imagefolder:FOLDER --teacher FILE [--net resnet20|resnet56] [--json FILE]
                                  [--only bits,step,peers] [--seeds 0] [--quick]

bits: a ResNet whose parameters are named as in examples/my_model.py, calibrated and not trained, in OpenVINO held to
AVX2 (ONEDNN_MAX_CPU_ISA): weights of 8 bits against the 7 of the profile x86-avx2, on the same test images as float.
step: a training step with the rounding in place against one in float32, in turn, and the peak memory of each.
peers: MobileNetV2 at half width, a small ViT, ResNet-18, SqueezeNet, EfficientNet-B0 and the MNIST example, random
weights: our file for each runtime, with additions rounded as this CPU is faster with, against what
onnxruntime.quantization.quantize_static makes by default and with the options that ONNX Runtime recommends for its
CPU, and against nncf.quantize where that is installed, timed in turn in both runtimes; and the same integers with
activations rounded behind pools and concatenations and not before, where that differs.
"""

from __future__ import annotations

import copy
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from distill_nets import resnet20, resnet56
from distill_runs import room
from guard_nets import EfficientNet, MobileNet, SqueezeNet, seeded
from latency_nets import ResNet18, settled
from peers import nncf_file, static
from seeds import Results, parser, seeds_of, table, wanted
from torch import Tensor, nn

from edgepress.stages.comparison import sqnr_db
from edgepress.stages.data import Data, loader
from edgepress.stages.evaluation import EVAL_BATCH
from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.quantization import frozen
from edgepress.stages.quantization.additions import faster_additions
from edgepress.stages.quantization.posttraining import Calibrated, calibrate
from edgepress.stages.quantization.prepare import prepare
from edgepress.stages.quantization.ranges import calibrate_
from edgepress.stages.quantization.scheme import Flavour, Scheme
from edgepress.stages.quantization.switching import switch_
from edgepress.stages.weights import load_weights_
from edgepress.targets import memory, profiles
from edgepress.targets.measure import Engine, Measurement, measure
from edgepress.targets.probing import LocalProber
from edgepress.targets.runtimes import target
from edgepress.targets.statistics import paired_drop, ratio

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))  # the small ViT is an example

NETS = {"resnet20": resnet20, "resnet56": resnet56}
NAMES = ("bits", "step", "peers")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # as the published weights want it
LEARNERS = ("float32", "openvino", "ort-u8", "trt")
LAYOUTS: Mapping[str, Flavour] = {"onnxruntime": "ort-u8", "openvino": "openvino"}
LATE = "ours, rounded late"
SIZE = 96  # of the peers' inputs
CALIBRATION = 256
BATCH = 128


def main() -> None:
    made = parser(__doc__, data="imagefolder:FOLDER")
    made.add_argument("--teacher", type=Path, required=True, metavar="FILE", help="weights of the ResNet")
    made.add_argument("--net", choices=tuple(NETS), default="resnet20")
    made.add_argument("--images", type=int, default=2000, help="of the test images, for accuracy (default: 2000)")
    options = made.parse_args()
    limit = 200 if options.quick else options.images
    with room(options, val_share=0.1, **IMAGENET) as found:
        net = NETS[options.net](len(found.data.classes))
        load_weights_(net, options.teacher)
        results = Results(file=options.json, settings={"net": options.net, "images": limit})
        seconds, rounds = (0.5, 2) if options.quick else (6.0, 9)
        parts: dict[str, Callable[[int], None]] = {
            "bits": lambda seed: bits(results, net.eval(), found.data, limit, seed),
            "step": lambda seed: step(results, net, found.data, rounds, seed),
            "peers": lambda seed: peers(results, seconds, seed, quick=options.quick),
        }
        for name in wanted(options, NAMES):
            for seed in seeds_of(options):
                parts[name](seed)
    report(results)


def bits(results: Results, net: nn.Module, data: Data, limit: int, seed: int) -> None:
    """Accuracy in OpenVINO without VNNI: float, 8 bits, 7 bits."""

    def do() -> dict[str, float]:
        batches = calibration_batches(data, seed)
        images, labels = some(data, limit)
        with tempfile.TemporaryDirectory(prefix="bits-") as name:
            folder, engines = Path(name), []
            modules = {"float": net}
            for width in (8, 7):
                scheme = Scheme(flavour="openvino", weight_bits=width)
                modules[f"w{width}"] = frozen.freeze(calibrate(net, scheme, batches, are_classes=True).module, scheme)
            for kind, module in modules.items():
                path = written(module, folder / f"{kind}.onnx", images[:1])
                precision = "fp32" if kind == "float" else "int8"
                engines.append(Engine(name=kind, path=path, runtime="openvino", precision=precision))
            found = timed(engines, images.numpy(), environment=profiles.load("x86-avx2").environment)
        right = {kind: answers(found, kind).argmax(1) == labels.numpy() for kind in modules}
        figures = {f"accuracy {kind}": 100 * float(value.mean()) for kind, value in right.items()}
        for kind in ("w8", "w7"):
            drop, low, high = paired_drop(right["float"], right[kind])
            figures |= {f"drop {kind}": drop, f"drop {kind} low": low, f"drop {kind} high": high}
            figures[f"sqnr {kind}"] = sqnr_db(answers(found, kind), answers(found, "float"))
            figures |= faster(found, kind, "float")
        return figures

    results.run("bits", seed, do)


def step(results: Results, net: nn.Module, data: Data, rounds: int, seed: int) -> None:
    """Milliseconds and peak memory of a training step: float32, and with the rounding of each layout."""
    images, labels = some(data, BATCH, split="train")

    def do() -> dict[str, float]:
        figures: dict[str, float] = {}
        for (
            name
        ) in LEARNERS:  # each in a process of its own: what an allocator keeps would hide what the next one takes
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                figures[f"MB {name}"] = alone.submit(peak_mb, net, name, images, labels).result()
        learners = {name: learner(net, name, images) for name in LEARNERS}
        optimizers = {name: optimizer_of(module) for name, module in learners.items()}
        seconds: dict[str, list[float]] = {name: [] for name in learners}
        for place in range(rounds + 1):
            for name, module in learners.items():
                began = time.perf_counter()
                train_once(module, optimizers[name], images, labels)
                if place:
                    seconds[name].append(time.perf_counter() - began)
        for name, module in learners.items():
            figures |= where_it_goes(name, module, optimizers[name], images, labels)
        for name, values in seconds.items():
            quotients = np.asarray(values) / np.asarray(seconds["float32"])
            figures[f"ms {name}"] = 1000 * float(np.median(values))
            figures[f"times {name}"] = float(np.median(quotients))
            figures[f"times {name} low"], figures[f"times {name} high"] = float(min(quotients)), float(max(quotients))
        return figures

    results.run("step", seed, do)


def learner(net: nn.Module, name: str, images: Tensor) -> nn.Module:
    """The network in train mode; with the rounding of a layout, in an epoch that moves no range and no batch norm."""
    if name == "float32":
        return copy.deepcopy(net).train()
    module = prepare(net, Scheme(flavour=name))  # type: ignore[arg-type]
    calibrate_(module, [images[:4]])
    switch_(module, epoch=1, epochs=2)
    return module.train()


def optimizer_of(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=1e-4)


def train_once(module: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    loss = nn.functional.cross_entropy(module(images), labels)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def where_it_goes(
    name: str, module: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> dict[str, float]:
    """Per cent of a step's time by kind of operator, from torch's own profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        train_once(module, optimizer, images, labels)
    events = seen.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    kinds = {"convolutions": "conv", "rounding": "fake_quantize", "batch norm": "batch_norm"}
    return {
        f"% in {kind}, {name}": 100 * sum(e.self_cpu_time_total for e in events if word in e.key) / whole
        for kind, word in kinds.items()
    }


def peak_mb(net: nn.Module, name: str, images: Tensor, labels: Tensor) -> float:
    """What one step takes at most, over what the process held before it. Alone in its process."""
    module = learner(net, name, images)
    optimizer = optimizer_of(module)
    before = memory.now_mb().get("resident", math.nan)
    memory.forget_peak()
    train_once(module, optimizer, images, labels)
    return memory.now_mb().get("peak", math.nan) - before


def peers(results: Results, seconds: float, seed: int, *, quick: bool) -> None:
    """Ours against the peers' defaults in both runtimes: speed and fidelity."""
    from mnist_nets import student
    from vit import teacher as vit

    torch.manual_seed(seed)
    large, digits = (3, SIZE, SIZE), (1, 28, 28)
    nets: dict[str, tuple[nn.Module, tuple[int, int, int]]] = {
        "MobileNetV2": (seeded(MobileNet()), large),
        "ViT": (vit(size=SIZE, patch=12).eval(), large),
        "ResNet-18": (settled(ResNet18(10), large), large),
        "SqueezeNet": (seeded(SqueezeNet()), large),
        "EfficientNet-B0": (settled(EfficientNet(), large), large),
        "MNIST": (settled(student(), digits), digits),
    }
    if quick:
        nets = {name: nets[name] for name in ("MobileNetV2", "MNIST")}
    for name, (net, shape) in nets.items():
        for runtime, flavour in LAYOUTS.items():
            if target(runtime).unavailable():
                continue
            do = partial(against_peers, net, shape, runtime, flavour, seconds=seconds, seed=seed)
            results.run(f"{name} in {runtime}", seed, do)


def against_peers(
    net: nn.Module, shape: tuple[int, int, int], runtime: str, flavour: Flavour, *, seconds: float, seed: int
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(CALIBRATION + 64, shape[0], 12, 12, generator=generator)
    images = nn.functional.interpolate(coarse, shape[1:], mode="bilinear") - 0.5
    show_norms(net, images[:64])
    calibration, shown = images[:CALIBRATION], images[CALIBRATION:]
    batches = list(torch.split(calibration, 64))
    found_by: dict[Scheme, Calibrated] = {}

    def ours(path: Path, scheme: Scheme) -> Path:
        if scheme not in found_by:
            found_by[scheme] = calibrate(net, scheme, batches, are_classes=True)
        return written(frozen.freeze(found_by[scheme].module, found_by[scheme].scheme), path, shown[:1])

    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name)
        files = {"float": written(net, folder / "float.onnx", shown[:1])}
        scheme = laid_out(net, Scheme(flavour=flavour), runtime, ours, shown[:1])
        files["ours"] = ours(folder / "ours.onnx", scheme)
        files[LATE] = written(rounded_late(found_by[scheme]), folder / "late.onnx", shown[:1])
        if files[LATE].read_bytes() == files["ours"].read_bytes():
            del files[LATE]
        files |= static(files["float"], calibration.numpy(), folder)
        files |= nncf_file(files["float"], calibration.numpy(), folder, runtime)
        engines = [
            Engine(name=kind, path=path, runtime=runtime, precision="fp32" if kind == "float" else "int8")
            for kind, path in files.items()
        ]
        found = timed(engines, shown.numpy(), seconds=seconds)
    figures: dict[str, float] = {"both operands of additions rounded": float(scheme.whole_additions)}
    for kind in files:
        latency = found.figures[kind].latency
        if latency is None:
            print(f"{kind} in {runtime}: {found.figures[kind].failed}", file=sys.stderr)
            continue
        figures[f"ms {kind}"] = latency.median_ms
        if kind != "float":
            figures[f"sqnr {kind}"] = sqnr_db(answers(found, kind), answers(found, "float"))
            figures |= faster(found, kind, "float")
        if kind not in ("float", "ours"):
            figures |= faster(found, "ours", kind)
    return figures


def laid_out(
    net: nn.Module, scheme: Scheme, runtime: str, write: Callable[[Path, Scheme], Path], sample: Tensor
) -> Scheme:
    """The scheme as a job settles it: in OpenVINO, with additions rounded as this CPU is faster with."""
    if scheme.flavour != "openvino":
        return scheme
    prober = LocalProber(runtime=runtime, sample=sample.numpy())
    return faster_additions(net, scheme, prober=prober, write=write).scheme


def rounded_late(ours: Calibrated) -> nn.Module:
    """The same integers; activations are rounded where the layers read them, behind pools and concatenations."""
    with mock.patch.object(frozen, "round_early_", return_value=None):
        return frozen.freeze(ours.module, ours.scheme)


def show_norms(net: nn.Module, images: Tensor) -> None:
    """Let batch norms see what comes, else answers of random weights vanish."""
    net.train()
    with torch.no_grad():
        net(images)
    net.eval()


def calibration_batches(data: Data, seed: int) -> list[Tensor]:
    images, _ = some(data, CALIBRATION, split="train", seed=seed)
    return list(torch.split(images, 64))


def some(data: Data, count: int, *, split: str = "test", seed: int = 0) -> tuple[Tensor, Tensor]:
    """So many normalised images with their labels."""
    images, labels = [], []
    for batch, targets, _ in loader(getattr(data, split), batch_size=EVAL_BATCH, shuffle=True, seed=seed, epoch=0):
        images.append(data.preprocessing.normalize(batch))
        labels.append(targets)
        if sum(map(len, images)) >= count:
            break
    return torch.cat(images)[:count], torch.cat(labels)[:count]


def written(module: nn.Module, path: Path, example: Tensor) -> Path:
    write_onnx(module.eval(), path, example=example, opset=17, dynamic_batch=False, metadata={})
    return path


def timed(
    engines: list[Engine], images: np.ndarray[Any, Any], *, seconds: float = 2.0, environment: Mapping[str, str] = {},
) -> Measurement:  # fmt: skip
    return measure(
        engines, inputs={"test": images}, seconds=seconds, environment=environment, all_cores=False, memory=False,
        energy=False,
    )  # fmt: skip


def answers(found: Measurement, kind: str) -> np.ndarray[Any, Any]:
    outputs = found.figures[kind].outputs
    if outputs is None:
        sys.exit(f"{kind}: {found.figures[kind].failed}")
    return outputs["test"]


def faster(found: Measurement, kind: str, than: str) -> dict[str, float]:
    """How many times, with its interval."""
    mine, theirs = found.figures[kind].latency, found.figures[than].latency
    if mine is None or theirs is None:
        return {}
    value = ratio(theirs, mine)
    name = f"{kind} over {than}"
    return {name: value.value, f"{name} low": value.low, f"{name} high": value.high}


def report(results: Results) -> None:
    for name, by_seed in results.by_name().items():
        for seed, figures in by_seed.items():
            print(f"\n{name}, seed {seed}\n")
            shown = [figure for figure in figures if not figure.endswith(("low", "high"))]
            print(table(["figure", "value", "95 % (times: range)"], [row(figure, figures) for figure in shown]))


def row(figure: str, figures: Mapping[str, float]) -> tuple[str, str, str]:
    low, high = figures.get(f"{figure} low"), figures.get(f"{figure} high")
    return figure, f"{figures[figure]:.4g}", "" if low is None or high is None else f"{low:.4g} to {high:.4g}"


if __name__ == "__main__":
    main()
