"""Two processes that distil together against one that sees the same batches: do their losses agree, epoch by epoch?

python benchmarks/distill_processes.py --data mnist:FOLDER [--processes 2] [--train 2000] [--seeds 0,1,2] [--json FILE]

Each training is started as a user would, by torchrun, over gloo on a CPU: the same teacher, student, seed and global
batch, once in one process and once divided among several. Told are the largest differences of a loss, relative to what
one process has, and the test accuracies. Sums in another order differ in their last bits, which grows with the epochs.
A network without batch norm, and one with it: there every process normalises by its own part of a batch, for torch has
no shared batch norm on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from distill_families import smaller
from distill_nets import big_cnn, small_cnn
from distill_runs import Room, room, tested
from seeds import Results, parser, seeds_of, table, wanted
from torch import nn

from edgepress.stages.launch import processes
from edgepress.stages.lesson import Lesson
from edgepress.stages.teaching import teach

TEACHER = Lesson(epochs=3, lr=0.1, batch_size=128, optimizer="sgd", weight_decay=5e-4)
STUDENT = Lesson(epochs=8, lr=5e-3, batch_size=128, optimizer="adamw", ce=0.1, kd=0.9, temperature=4.0)
TRAIN = 2000
PATIENCE_S = 3600


def without_norms(channels: int) -> nn.Module:
    """Three convolutions and a linear layer: nothing in it looks at a batch as a whole."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 12), (12, 24), (24, 48)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


STUDENTS: Mapping[str, Callable[[int], nn.Module]] = {"without batch norm": without_norms, "with batch norm": small_cnn}


def main() -> None:
    options = arguments()
    if options.part is not None:
        learn(options)
        return
    with tempfile.TemporaryDirectory(prefix="processes-") as folder:
        options.keep = options.keep or (options.json.with_suffix("") if options.json else Path(folder))
        with opened(options) as place:
            big(place, quick=options.quick)  # trained once, before there are several
            images = len(place.data.test)
        results = Results(file=options.json, settings={
            "processes": options.processes, "train": options.train, "quick": options.quick, "lesson": asdict(STUDENT),
        })  # fmt: skip
        for seed in seeds_of(options):
            for name in wanted(options, list(STUDENTS)):
                results.run(name, seed, partial(compared, options, name, seed))
        report(results, images, options.processes)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, data="mnist:FOLDER")
    made.add_argument("--processes", type=int, default=2, help="default: 2")
    made.add_argument("--train", type=int, default=TRAIN, metavar="N", help=f"images to learn from (default: {TRAIN})")
    made.add_argument("--part", type=Path, help=argparse.SUPPRESS)  # this is one of several; what it has goes here
    return made.parse_args()


def opened(options: argparse.Namespace) -> Any:
    """The images."""
    return room(options, limit=200 if options.quick else None, augment=("shift",))


def big(place: Room, *, quick: bool) -> nn.Module:
    """The teacher."""
    lesson = TEACHER if not quick else Lesson(**{**asdict(TEACHER), "epochs": 1})
    return place.kept("teacher", partial(big_cnn, place.data.shape[0]), lesson, seed=0)


def compared(options: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    """One training in one process and in several, and how far apart they are."""
    alone, *_ = together(options, name, seed, count=1)
    parts = together(options, name, seed, count=options.processes)
    gaps = [
        [abs(ours - theirs) / abs(theirs) for ours, theirs in zip(parts[0]["losses"][name], values, strict=True)]
        for name, values in alone["losses"].items()
    ]
    return {
        "first epoch": max(of_loss[0] for of_loss in gaps),
        "any epoch": max(max(of_loss) for of_loss in gaps),
        "weights alike": float(all(part["weights"] == parts[0]["weights"] for part in parts)),
        "test, one": alone["test"],
        "test, several": parts[0]["test"],
    }


def together(options: argparse.Namespace, name: str, seed: int, *, count: int) -> list[dict[str, Any]]:
    """What each of so many processes ends with."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    with tempfile.TemporaryDirectory(prefix="parts-") as folder:
        words = [
            *launcher, __file__, "--data", options.data, "--keep", options.keep, "--train", options.train,
            "--seeds", seed, "--only", name, "--part", folder, *(["--quick"] if options.quick else []),
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{count} processes ended with {done.returncode}:\n{done.stderr}")
        return [json.loads((Path(folder) / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(count)]


def learn(options: argparse.Namespace) -> None:
    """Be one of the processes."""
    torch.set_num_threads(1)
    (student,), (seed,) = options.only, options.seeds
    rank = processes()[0]
    with opened(options) as found:
        teacher = big(found, quick=options.quick)
        place = smaller(found, options.train)
        torch.manual_seed(seed)
        net = STUDENTS[student](place.data.shape[0])
        context = place.context(f"part-{processes()[1]}", seed=seed, folder=options.part)
        trained, _ = teach(net, STUDENT, context, teacher=teacher)
        losses = {name: values for name, values in trained.curves.items() if name in STUDENT.losses()}
        facts = {
            "losses": losses,
            "weights": {key: value.flatten().tolist() for key, value in net.state_dict().items()},
            "test": tested(net.eval(), place.data),
        }
        (options.part / f"{rank}.json").write_text(json.dumps(facts), encoding="utf-8")


def report(results: Results, images: int, count: int) -> None:
    """The table."""
    print(f"{count} processes against one, {STUDENT.epochs} epochs, global batch {STUDENT.batch_size}, "
          f"{images} test images. {results.where}\n")  # fmt: skip
    rows = [
        [name, seed, f"{one['first epoch']:.1g}", f"{one['any epoch']:.1g}", "yes" if one["weights alike"] else "no",
         f"{one['test, one']:.2f}", f"{one['test, several']:.2f}"]
        for name, by_seed in results.by_name().items() for seed, one in by_seed.items()
    ]  # fmt: skip
    head = ["student", "seed", "relative difference of a loss, first epoch", "largest of any epoch",
            "all end with the same weights", "test accuracy of one, %", f"of {count}, %"]  # fmt: skip
    print(table(head, rows))


if __name__ == "__main__":
    main()
