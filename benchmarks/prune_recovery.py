"""With which losses does a pruned network recover best? One pruned network, recovered by each of them in turn.

python benchmarks/prune_recovery.py --data imagefolder:CIFAR --weights FOLDER [--net resnet20] [--percent 50]
    [--epochs 4] [--images 10000] [--seeds 0,1,2] [--only NAME,...] [--json FILE]
python benchmarks/prune_recovery.py --net mnist --data mnist:FOLDER --images 5000 --epochs 3 [...]

ResNet-20 or ResNet-56 on CIFAR-10, or the network of examples/mnist_nets.py, trained here on the same images for twelve
epochs, is pruned by `budget: {speedup: ...}` to --percent of its float latency, channels and residual blocks, once for
each seed; copies of what comes out are trained for --epochs epochs on --images images with the unpruned network as
teacher, by the labels and its answers alone (`kd`) and with more beside them. The validation images choose the epoch,
and would choose the losses; the test images choose nothing.
"""

from __future__ import annotations

import argparse
import copy
import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from pairs import machine
from prune_rivals import EXAMPLES, by_search, cifar_net, place_for
from safetensors.torch import save_file
from seeds import Results, difference, mean_sd, parser, seeds_of, table, wanted

from edgepress.pipeline.teachers import fingerprint
from edgepress.stages.distill.ramps import Ramp
from edgepress.stages.distill.settings import Loss
from edgepress.stages.evaluation import quality
from edgepress.stages.lesson import Lesson
from edgepress.stages.teaching import teach

TRAINED = 12  # epochs of the MNIST network
ANSWERS = {"ce": Loss(weight=0.1), "kd": Loss(weight=0.9, options={"temperature": 4.0})}
WITH_ITS_FEATURES = ("at", "at fading", "hint", "hints", "similarity", "at hints")


def beside(name: str, epochs: int) -> dict[str, Loss]:
    """What stands beside the answers. Fading: gone at the end."""
    fading = Ramp(epochs=epochs, start=1.0, end=0.0)
    return {
        "kd": {},
        "at": {"at": Loss(weight=1000.0)},
        "at fading": {"at": Loss(weight=1000.0, ramp=fading)},
        "hint": {"hint": Loss(weight=100.0)},
        "hints": {"hint": Loss(weight=100.0, taps="@stages")},
        "similarity": {"sp": Loss(weight=3000.0)},
        "at hints": {"at": Loss(weight=1000.0), "hint": Loss(weight=100.0)},
    }[name]


def main() -> None:
    options = arguments()
    losses = wanted(options, ["kd", *WITH_ITS_FEATURES])
    results = Results(file=options.json, settings={
        "net": options.net, "runtime": options.runtime, "percent": options.percent, "epochs": options.epochs,
        "images": options.images, "precision": options.precision, "quick": options.quick,
    })  # fmt: skip
    kept = options.keep or (options.json.with_suffix("") if options.json else None)
    with tempfile.TemporaryDirectory(prefix="recovery-") as name:
        for seed in seeds_of(options):
            folder = (kept or Path(name)) / f"{options.net}-{options.runtime}-{options.percent}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            results.run(" ".join(losses), seed, functools.partial(recovered, losses, options, folder, seed))
    print(f"{machine()}\n\n{shown(results, losses)}")


def recovered(losses: list[str], options: argparse.Namespace, folder: Path, seed: int) -> dict[str, float]:
    """One pruned network, and its accuracy after each recovery."""
    given = mnist_net(options, folder, seed) if options.net == "mnist" else cifar_net(options.net, options)
    place = place_for(given, options.runtime, options, folder, seed=seed, percent=options.percent)
    data, teacher = place.context.data, place.original.module
    module, share, met = by_search(place)
    found = {"share": share, "met": met, "teacher": quality(teacher, data.test, data)}
    for name in losses:
        student = copy.deepcopy(module)
        work = folder / "work" / f"{name}-{fingerprint(student)}"
        work.mkdir(parents=True, exist_ok=True)
        settings: Any = replace(place.settings, loss={**ANSWERS, **beside(name, options.epochs)})
        known = {"model": teacher, "float": teacher}
        teach(student, settings, replace(place.context, work=work), teacher=teacher, known=known)
        found |= {f"{name} validation": quality(student, data.val, data), name: quality(student, data.test, data)}
    return found


def mnist_net(options: argparse.Namespace, folder: Path, seed: int) -> dict[str, str]:
    """What a recipe says of the network, which is trained first, and its data."""
    facts = {
        "model": f"{EXAMPLES / 'mnist_nets.py'}:student", "data": options.data, "data.augment": "[shift]",
        "prune": f"{{epochs: {options.epochs}, lr: 2.0e-3}}",
    }  # fmt: skip
    weights = folder / "mnist.safetensors"
    if not weights.is_file():
        place = place_for(facts, options.runtime, options, folder, seed=seed, percent=options.percent)
        module, lesson = place.original.module, Lesson(epochs=TRAINED, lr=3e-3)
        teach(module, lesson, replace(place.context, work=folder), teacher=None)
        save_file(module.state_dict(), weights)
    return {**facts, "model.weights": str(weights)}


def shown(results: Results, losses: list[str]) -> str:
    """A row for each loss."""
    ran = results.by_name()[" ".join(losses)]
    first = losses[0]
    by_loss = {name: {seed: figures[name] for seed, figures in ran.items()} for name in losses}
    rows = [
        [
            "answers" if name == "kd" else f"answers, {name}",
            mean_sd([figures[f"{name} validation"] for figures in ran.values()]),
            mean_sd(list(values.values())),
            "" if name == first else difference(values, by_loss[first]),
            len(values),
        ]
        for name, values in by_loss.items()
    ]
    share = mean_sd([100 * figures["share"] for figures in ran.values()], 1)
    said = mean_sd([figures["teacher"] for figures in ran.values()])
    head = ["recovered by", "validation, %", "test, %", f"more than {first} (95 %)", "seeds"]
    return f"in {share} % of the float time; as given {said} %\n\n{table(head, rows)}"


def arguments() -> argparse.Namespace:
    made = parser(__doc__, data="imagefolder:FOLDER")
    made.add_argument("--weights", type=Path, metavar="FOLDER", help="with resnetNN-cifar10jpeg.safetensors")
    made.add_argument("--net", choices=("mnist", "resnet20", "resnet56"), default="resnet20")
    made.add_argument("--runtime", choices=("openvino", "onnxruntime"), default="openvino")
    made.add_argument("--percent", type=int, default=50, help="of the float latency (default: 50)")
    made.add_argument("--epochs", type=int, default=4, help="of recovery (default: 4)")
    made.add_argument("--images", type=int, default=10000, help="at most (default: 10000)")
    options = made.parse_args()
    if options.net != "mnist" and options.weights is None:
        made.error("--weights: the folder of the trained ResNets")
    if options.quick:
        options.epochs, options.images = 1, 200
    return options


if __name__ == "__main__":
    main()
