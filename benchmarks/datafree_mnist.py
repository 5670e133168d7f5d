"""A student that never sees a digit: LeNet-5 teaches its half on MNIST, from images that are made.

python benchmarks/datafree_mnist.py --data mnist:FOLDER [--only NAME,...] [--augment shift] [--judge train]
    [--json FILE]

As in DAFL (Chen et al., 2019, arXiv:1904.01186) and DFAD (Fang et al., 2019, arXiv:1912.11006). The teacher learns
from the training images. Without data a student is given what the teacher makes of generated images, its epochs are
chosen by agreement with the teacher on other generated images, and its generator by a score that needs no data. Beside
it: the same student on noise, for as many steps as beside DFAD's generator, on the training images with their labels,
and on them with the teacher. Test images are looked at once for each run, at its end; --judge train looks at training
images instead, to choose settings by. --augment varies made images as real ones would be. Seconds are of the whole run,
making of images included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from datafree_nets import lenet5, lenet5_half
from distill_families import smaller
from distill_runs import Room, room, tested
from seeds import Results, mean_sd, parser, seeds_of, table, wanted
from torch import nn

from edgepress.pipeline.teachers import fingerprint
from edgepress.stages.distill.settings import Loss
from edgepress.stages.lesson import Lesson
from edgepress.stages.settings import DataSettings
from edgepress.stages.splits import thin
from edgepress.stages.synthesis.methods import METHODS
from edgepress.stages.synthesis.open import open_synthetic
from edgepress.stages.synthesis.settings import Synthesis

MEAN, STD = (0.1307,), (0.3081,)
TEACHER = Lesson(epochs=20, lr=0.05, batch_size=128, optimizer="sgd", weight_decay=5e-4)
REAL = Lesson(epochs=20, lr=0.05, batch_size=128, optimizer="sgd", weight_decay=5e-4)
EPOCHS, ROUNDS, BATCH = 18, 100, 256
JUDGES = 6000  # training images, where settings are chosen by them
DEFAULT, CONTROL = "dfad", "noise"
HURRIED = {"rounds": 2, "images": 64, "batch": 16, "restarts": 1}
OFTEN = {"dfq": 48}  # epochs where a round has fewer steps of the student
IMITATE: Mapping[str, Loss] = {"logits": Loss(weight=1.0, options={"distance": "l1"})}
PAPERS = {
    "dafl": "98.20 (98.1 by others)", "dfad": "98.3 ± 0.2", "noise": "88.01, 74.7", "labels": "98.65",
    "taught": "98.91", "teacher": "98.91",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The pair and its images, real ones; the latter only for the controls and for the end."""

    place: Room
    epochs: int | None
    teaching: Lesson
    quick: bool
    augment: tuple[str, ...] = ()

    def teacher(self) -> nn.Module:
        """Trained once, on real images."""
        return self.place.kept("teacher", lenet5, self.teaching, seed=0)

    def of_teacher(self, seed: int) -> dict[str, float]:
        return {"test": tested(self.teacher(), self.place.data)}

    def without_data(self, seed: int, *, method: str) -> dict[str, float]:
        """A student of made images."""
        began, teacher = time.perf_counter(), self.teacher()
        few = HURRIED if self.quick else {"rounds": ROUNDS, "images": 2048}
        if method == CONTROL:  # as many rounds of it, and so many epochs that the student takes as many steps
            few = {**few, "images": round(few["rounds"] * BATCH / 0.8)}
        made = Synthesis(method=method, **few)  # type: ignore[arg-type]
        data = open_synthetic(
            DataSettings(
                source="generated", shape=self.place.data.shape, mean=MEAN, std=STD, synthesis=made,
                augment=self.augment,  # type: ignore[arg-type]
            ),
            teacher=teacher, fingerprint=fingerprint(teacher), seed=seed,
            cache=self.place.folder / f"made-{method}-{seed}",
        )  # fmt: skip
        epochs = self.epochs or (1 if self.quick else OFTEN.get(method, EPOCHS))
        lesson = Lesson(
            epochs=epochs * (METHODS[DEFAULT].learns if method == CONTROL else 1),
            lr=2e-3, batch_size=BATCH, optimizer="adamw", weight_decay=0.0, ce=0.0, kd=1.0,
            loss=None if method in OFTEN else IMITATE,
        )  # fmt: skip
        place = replace(self.place, data=data)
        net = place.train(method, lenet5_half, lesson, seed=seed, teacher=teacher)
        seconds = time.perf_counter() - began
        agreement = tested(net, data)  # of images that were made
        return {"test": tested(net, self.place.data), "agreement": agreement, "seconds": seconds}

    def with_data(self, seed: int, *, taught: bool) -> dict[str, float]:
        """The same student on the training images."""
        began = time.perf_counter()
        lesson = replace(REAL, epochs=self.teaching.epochs, **({"ce": 0.1, "kd": 0.9} if taught else {}))
        teacher = self.teacher() if taught else None
        net = self.place.train("taught" if taught else "labels", lenet5_half, lesson, seed=seed, teacher=teacher)
        return {"test": tested(net, self.place.data), "seconds": time.perf_counter() - began}


def runs(bench: Bench) -> dict[str, Callable[[int], dict[str, float]]]:
    made = (DEFAULT, "dfq", "dafl", "zskt", CONTROL)
    return {
        "teacher": bench.of_teacher,
        **{method: partial(bench.without_data, method=method) for method in made},
        "labels": partial(bench.with_data, taught=False),
        "taught": partial(bench.with_data, taught=True),
    }


def main() -> None:
    options = arguments()
    with room(options, mean=MEAN, std=STD, limit=300 if options.quick else None) as found:
        place = smaller(found, options.train)
        bench = Bench(
            place=judged_by_training(place) if options.judge == "train" else place,
            augment=options.augment,
            epochs=options.epochs,
            teaching=replace(TEACHER, epochs=1) if options.quick else TEACHER,
            quick=options.quick,
        )
        results = Results(file=options.json, settings={
            "images": len(bench.place.data.test), "epochs": options.epochs or "usual", "precision": options.precision,
            **({"judge": options.judge} if options.judge != "test" else {}),
            **({"augment": list(options.augment)} if options.augment else {}),
        })  # fmt: skip
        there = runs(bench)
        results.run("teacher", 0, partial(bench.of_teacher, 0))
        for seed in seeds_of(options):
            for name in wanted(options, list(there)):
                if name != "teacher":
                    results.run(name, seed, partial(there[name], seed))
        report(results, bench)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, data="mnist:FOLDER")
    made.add_argument("--train", type=int, metavar="N", help="real images for the teacher and the controls")
    made.add_argument("--epochs", type=int, help=f"of {ROUNDS} rounds, of the student without data "
                      f"(default: {EPOCHS}; {OFTEN})")  # fmt: skip
    made.add_argument("--judge", choices=("test", "train"), default="test", help="images that judge (default: test)")
    made.add_argument("--augment", type=lambda text: tuple(text.split(",")), default=(), metavar="NAME,...",
                      help="of made images, as data.augment")  # fmt: skip
    return made.parse_args()


def judged_by_training(place: Room) -> Room:
    """The place with some training images where the test images were."""
    data = place.data
    assert data.train is not None
    return replace(place, data=replace(data, test=data.train.subset(thin(data.train.labels(), JUDGES, seed=0))))


def report(results: Results, bench: Bench) -> None:
    """The table."""
    found = results.by_name()
    print(f"LeNet-5 teaches its half; judged by {len(bench.place.data.test)} images. {results.where}\n")
    rows = []
    for name, by_seed in found.items():
        figures = list(by_seed.values())
        cells = [mean_sd([one[key] for one in figures], digits) if key in figures[0] else ""
                 for key, digits in (("test", 2), ("agreement", 2), ("seconds", 0))]  # fmt: skip
        rows.append([name, *cells, len(figures), PAPERS.get(name, "")])
    head = ["run", "test accuracy, %", "agreement on made images, %", "seconds", "n", "in the papers"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
