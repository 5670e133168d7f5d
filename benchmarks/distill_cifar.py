"""ResNet-56 teaches ResNet-20 on CIFAR-10: distillation methods against cross-entropy with the same budget.

python benchmarks/distill_cifar.py --data imagefolder:FOLDER --teacher FILE [--full] [--precision bf16] [--json FILE]

He et al., 2016 (arXiv:1512.03385), section 4.2. --teacher: weights of a ResNet-56 whose parameters are named as in
examples/my_model.py. --student: weights of a ResNet-20 to go on from; none: from scratch. The schedule is short: a few
epochs in which every image has two fixed variations, so that the teacher's answers are computed twice and then read;
methods that look at the teacher's features compute them where they do not fit. --full is 240 epochs of new variations
(a cosine where the usual CIFAR schedule has three steps), for a GPU. The learning rate is one for all, the best for
cross-entropy on validation images where several are given. Epochs are chosen on validation images.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from distill_families import METHODS, TUNING, chosen, lesson_of, smaller
from distill_nets import resnet20, resnet56
from distill_runs import Room, room, tested
from seeds import Results, comparison, parser, seeds_of, wanted
from torch import nn

from edgepress.stages.distill.losses import LOSSES
from edgepress.stages.evaluation import accuracy
from edgepress.stages.lesson import Lesson
from edgepress.stages.weights import load_weights_

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # as the published weights want it
NAMES = ("ce", "kd", "dkd", "dist", "lskd", "at", "rkd", "crd")
SHORT, FULL, VIEWS = 10, 240, 2
VAL_SHARE = 0.04  # 2000 images: they are looked at after every epoch
LESSON = Lesson(epochs=SHORT, lr=0.1, batch_size=128, optimizer="sgd", weight_decay=5e-4)


def main() -> None:
    options = arguments()
    with room(
        options, limit=200 if options.quick else None, augment=("flip", "crop"), val_share=VAL_SHARE, **IMAGENET
    ) as found:
        lesson = replace(LESSON, epochs=epochs_of(options), views=None if options.full else VIEWS)
        bench = Bench(
            place=smaller(found, options.train),
            lesson=lesson,
            teacher_file=options.teacher,
            student_file=options.student,
        )
        results = Results(file=options.json, settings={
            "images": len(found.data.test), "train": options.train, "epochs": lesson.epochs, "views": lesson.views,
            "precision": options.precision, "student": options.student and options.student.name,
        })  # fmt: skip
        results.run("teacher", 0, bench.of_teacher)
        if options.student:
            results.run("student before", 0, bench.of_student)
        lr = best_rate(bench, results, options.rates)
        names = wanted(options, [name for name in NAMES if all(part in LOSSES for part in METHODS[name])])
        for seed in seeds_of(options):
            for name in names:
                base = replace(lesson, lr=lr)
                extra = chosen(lesson_of(METHODS[name], base))
                results.run(name, seed, partial(bench.measure, name, METHODS[name], seed, lr), **extra)
        report(results, bench, lr)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, data="imagefolder:FOLDER")
    made.add_argument("--teacher", type=Path, required=True, metavar="FILE", help="weights of a ResNet-56")
    made.add_argument("--student", type=Path, metavar="FILE", help="weights of a ResNet-20 to go on from")
    made.add_argument("--train", type=int, metavar="N", help="learn from so many images, drawn alike from every class")
    made.add_argument("--full", action="store_true", help=f"{FULL} epochs, new variations in each; for a GPU")
    made.add_argument("--epochs", type=int, help=f"default: {SHORT}")
    made.add_argument("--rates", type=lambda text: tuple(map(float, text.split(","))), default=(LESSON.lr,),
                      metavar="0.05,0.1", help=f"learning rates to choose from (default: {LESSON.lr})")  # fmt: skip
    return made.parse_args()


def best_rate(bench: Bench, results: Results, rates: Sequence[float]) -> float:
    """The learning rate that is best for cross-entropy, on validation images."""
    if len(rates) == 1:
        return rates[0]

    def validation(lr: float) -> float:
        do = partial(bench.measure, "tune", METHODS["ce"], TUNING, lr)
        return results.run("tune", TUNING, do, lr=lr)["validation"]

    return max(rates, key=validation)


def epochs_of(options: argparse.Namespace) -> int:
    if options.epochs:
        return int(options.epochs)
    return 1 if options.quick else FULL if options.full else SHORT


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The pair, its images and its schedule."""

    place: Room
    lesson: Lesson
    teacher_file: Path
    student_file: Path | None

    def teacher(self) -> nn.Module:
        net = resnet56(len(self.place.data.classes))
        load_weights_(net, self.teacher_file)
        return net.eval()

    def student(self) -> nn.Module:
        net = resnet20(len(self.place.data.classes))
        if self.student_file is not None:
            load_weights_(net, self.student_file)
        return net

    def of_teacher(self) -> dict[str, float]:
        return self.figures(self.teacher())

    def of_student(self) -> dict[str, float]:
        return self.figures(self.student().eval())

    def measure(self, name: str, recipe: Mapping[str, Any], seed: int, lr: float) -> dict[str, float]:
        """Train a student by a method."""
        lesson = lesson_of(recipe, replace(self.lesson, lr=lr))
        teacher = None if recipe == METHODS["ce"] else self.teacher()
        return self.figures(self.place.train(name, self.student, lesson, seed=seed, teacher=teacher))

    def figures(self, net: nn.Module) -> dict[str, float]:
        data = self.place.data
        return {"test": tested(net, data), "validation": accuracy(net, data.val, data.preprocessing)}


def report(results: Results, bench: Bench, lr: float) -> None:
    """The table, best first."""
    data, found = bench.place.data, results.by_name()
    assert data.train is not None
    start = "from scratch"
    if "student before" in found:
        start = f"from {found['student before'][0]['test']:.2f} %"
    views = f"{bench.lesson.views} fixed variations of each image" if bench.lesson.views else "new variations"
    print(
        f"ResNet-56 ({found['teacher'][0]['test']:.2f} % of {len(data.test)} test images) teaches ResNet-20, {start}: "
        f"{bench.lesson.epochs} epochs of {len(data.train)} images, {views}, SGD with learning rate {lr:g}. "
        f"{results.where}\n"
    )
    values = {name: results.values(name, "test") for name in NAMES if name in found}
    print(comparison(values, against=("ce", "kd")))


if __name__ == "__main__":
    main()
