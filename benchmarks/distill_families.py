"""What each distillation method brings to a small network, against cross-entropy that was tuned.

python benchmarks/distill_families.py --data imagefolder:FOLDER [--precision bf16] [--only NAME,...] [--json FILE]

One teacher and one student, both small convolutional networks; every method trains the same student for the same
epochs with the same optimiser. Learning rate and weight decay of cross-entropy alone are the best of a grid, on
validation images, so that no method is compared with a weak baseline. Each method takes that weight decay, that
learning rate or the next smaller one, whichever is better for it, and the weights that its paper or reference code
gives, unless --tune lets it choose among a third, one and three times these. Epochs are chosen on validation images.
Any source of pictures will do: `mnist:FOLDER --train 6000 --augment shift`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from distill_nets import big_cnn, macs, small_cnn
from distill_runs import Room, room, tested
from seeds import Results, comparison, parser, seeds_of, wanted
from torch import nn

from edgepress.stages.distill.losses import LOSSES
from edgepress.stages.distill.settings import Loss
from edgepress.stages.evaluation import accuracy
from edgepress.stages.lesson import Lesson
from edgepress.stages.splits import divide
from edgepress.targets.errors import StageError

TEACHER = Lesson(epochs=30, lr=0.1, batch_size=128, optimizer="sgd", weight_decay=5e-4)
STUDENT = replace(TEACHER, epochs=10)
RATES, DECAYS = (0.03, 0.1, 0.3, 1.0, 3.0), (1e-4, 5e-4, 2e-3)
SCALES = (1 / 3, 1.0, 3.0)
TINY = 1e-6
TUNING = 1000  # the seed of trainings that choose settings; no other figure comes from it

Recipe = Mapping[str, Any]
WARM_SHARE = 20 / 240  # of all epochs: the warm-up of the CIFAR-100 schedules
WARM = "a ramp over that share"
KD: Recipe = {"ce": 0.1, "kd": {"weight": 0.9, "temperature": 4.0}}
METHODS: dict[str, Recipe] = {
    "ce": {"ce": 1.0},
    "kd": KD,
    "dkd": {"ce": 1.0, "dkd": {"weight": 1.0, "ramp": WARM}},
    "lskd": {"ce": 0.1, "lskd": 9.0},
    "dist": {"ce": 1.0, "dist": 1.0},
    "luminet": {"ce": 2.0, "luminet": {"weight": 1.0, "ramp": WARM}},
    "normkd": {"ce": 0.1, "normkd": 0.9},
    "ctkd": {"ce": 0.1, "ctkd": 0.9},
    "mlkd": {"ce": 1.0, "mlkd": 1.0},
    "cakd": {"ce": 1.0, "cakd": 1.0},
    "logits": {"ce": 0.1, "logits": 0.9},
    "hard": {"ce": 0.5, "hard": 0.5},
    "hint": {**KD, "hint": 100.0},
    "at": {**KD, "at": 1000.0},
    "sp": {**KD, "sp": 3000.0},
    "rkd": {**KD, "rkd": 1.0},
    "pkt": {**KD, "pkt": 470.0},
    "cc": {**KD, "cc": 0.02},
    "vid": {**KD, "vid": 1.0},
    "ofd": {**KD, "ofd": 1e-3},
    "reviewkd": {**KD, "reviewkd": {"weight": 5.0, "ramp": WARM}},
    "afd": {**KD, "afd": 200.0},
    "crd_inbatch": {**KD, "crd_inbatch": 0.8},
    "crd": {**KD, "crd": 0.8},
    "nd": {**KD, "nd": 1.0},
}  # weights as in mdistiller's and RepDistiller's settings for CIFAR-100, for the form that the losses have here


def main() -> None:
    options = arguments()
    with room(options, limit=300 if options.quick else None, augment=options.augment) as found:
        place = smaller(found, options.train)
        epochs = options.epochs or (1 if options.quick else STUDENT.epochs)
        bench = Bench(place=place, epochs=epochs, teaching=replace(TEACHER, epochs=1) if options.quick else TEACHER)
        results = Results(file=options.json, settings={
            "images": len(found.data.test), "train": options.train, "epochs": bench.epochs,
            "precision": options.precision, "augment": options.augment,
        })  # fmt: skip
        there = {name: recipe for name, recipe in METHODS.items() if all(part in LOSSES for part in recipe)}
        names = wanted(options, list(there))
        results.run("teacher", 0, bench.measure_teacher)
        base = tuned(bench, results, quick=options.quick)
        lessons = {"ce": lesson_of(METHODS["ce"], base)}
        for name in names:
            if name != "ce":
                lessons[name] = own_best(bench, results, base, name, quick=options.quick, tune=options.tune)
        for seed in seeds_of(options):
            for name, lesson in lessons.items():
                results.run(name, seed, partial(bench.measure, name, lesson, seed), **chosen(lesson))
        report(results, bench, lessons)
        if missing := METHODS.keys() - there.keys():
            print(f"\nLeft out, for this version has no such loss: {', '.join(sorted(missing))}")


def arguments() -> argparse.Namespace:
    made = parser(__doc__, data="imagefolder:FOLDER")
    made.add_argument("--train", type=int, metavar="N", help="learn from so many images, drawn alike from every class")
    made.add_argument("--epochs", type=int, help=f"of the student (default: {STUDENT.epochs})")
    made.add_argument("--augment", type=lambda text: tuple(text.split(",")) if text else (), default=("flip", "crop"),
                      help="default: flip,crop; shift for digits")  # fmt: skip
    made.add_argument("--tune", action="store_true", help="choose the weight of each method on validation images")
    return made.parse_args()


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The pair and its images."""

    place: Room
    epochs: int  # of a student
    teaching: Lesson = TEACHER

    def big(self) -> nn.Module:
        return big_cnn(self.place.data.shape[0], len(self.place.data.classes))

    def small(self) -> nn.Module:
        return small_cnn(self.place.data.shape[0], len(self.place.data.classes))

    def teacher(self) -> nn.Module:
        """Trained once."""
        return self.place.kept("teacher", self.big, self.teaching, seed=0)

    def measure_teacher(self) -> dict[str, float]:
        return self.figures(self.teacher())

    def measure(self, name: str, lesson: Lesson, seed: int) -> dict[str, float]:
        """Train a student by a method."""
        teacher = None if set(lesson.losses()) == {"ce"} else self.teacher()
        return self.figures(self.place.train(name, self.small, lesson, seed=seed, teacher=teacher))

    def figures(self, net: nn.Module) -> dict[str, float]:
        data = self.place.data
        return {"test": tested(net, data), "validation": accuracy(net, data.val, data.preprocessing)}


def smaller(found: Room, count: int | None) -> Room:
    """Fewer images to learn from."""
    train = found.data.train
    assert train is not None
    if count is None or count >= len(train):
        return found
    few, _ = divide(train.labels(), count / len(train), generator=torch.Generator().manual_seed(0))
    return found.with_data(train=train.subset(few))


def lesson_of(recipe: Recipe, base: Lesson, *, scale: float = 1.0) -> Lesson:
    """The same training with other losses. scale: of every weight but cross-entropy's."""
    losses: dict[str, Any] = {}
    for name, said in recipe.items():
        parts = dict(said) if isinstance(said, Mapping) else {"weight": said}
        if parts.get("ramp") == WARM:
            parts["ramp"] = WARM_SHARE * base.epochs
        parts["weight"] *= 1.0 if name == "ce" else scale
        losses[name] = parts
    return replace(base, loss=Lesson(loss=losses).loss)


def tuned(bench: Bench, results: Results, *, quick: bool) -> Lesson:
    """The learning rate and weight decay that are best for cross-entropy, on validation images."""
    tried: dict[tuple[float, float], float] = {}
    for lr in RATES[1:2] if quick else RATES:
        for decay in DECAYS[1:2] if quick else DECAYS:
            lesson = replace(STUDENT, epochs=bench.epochs, lr=lr, weight_decay=decay, loss={"ce": Loss()})
            do = partial(bench.measure, "tune", lesson, TUNING)
            tried[lr, decay] = results.run("tune", TUNING, do, lr=lr, decay=decay)["validation"]
    lr, decay = max(tried, key=lambda pair: tried[pair])
    return replace(STUDENT, epochs=bench.epochs, lr=lr, weight_decay=decay)


def own_best(bench: Bench, results: Results, base: Lesson, name: str, *, quick: bool, tune: bool) -> Lesson:
    """A method at cross-entropy's learning rate or the one below, since losses add up; whichever is better.

    tune: also with a third, one or three times its weights. All on validation images.
    """
    rates = [rate for rate in RATES if base.lr / 10 < rate <= base.lr]
    tried = [
        lesson_of(METHODS[name], replace(base, lr=lr), scale=scale)
        for lr in ([base.lr] if quick else rates)
        for scale in (SCALES if tune else (1.0,))
    ]

    def attempt(lesson: Lesson) -> Mapping[str, float]:
        try:
            return bench.measure(f"tune-{name}", lesson, TUNING)
        except StageError as error:
            if "not finite" not in str(error):
                raise
            return {"test": 0.0, "validation": 0.0}  # too large a rate for it

    def validation(lesson: Lesson) -> float:
        return results.run(f"tune {name}", TUNING, partial(attempt, lesson), **chosen(lesson))["validation"]

    return max(tried, key=validation) if len(tried) > 1 else tried[0]


def chosen(lesson: Lesson) -> dict[str, Any]:
    """What decides a run besides the settings of all."""
    weights = {name: [loss.weight, dict(loss.options)] for name, loss in lesson.losses().items()}
    return {"lr": lesson.lr, "decay": lesson.weight_decay, "losses": weights}


def report(results: Results, bench: Bench, lessons: Mapping[str, Lesson]) -> None:
    """The table, best first."""
    data, found, base = bench.place.data, results.by_name(), lessons["ce"]
    big, small = macs(bench.big(), data.shape), macs(bench.small(), data.shape)
    teacher = found["teacher"][0]["test"]
    assert data.train is not None
    print(
        f"Teacher of {big / 1e6:.1f} million multiply-accumulates: {teacher:.2f} % of {len(data.test)} test images. "
        f"Student of {small / 1e6:.2f} million, {bench.epochs} epochs of {len(data.train)} images, SGD; learning rate "
        f"{base.lr:g} and weight decay {base.weight_decay:g} are best of {len(RATES) * len(DECAYS)} for cross-entropy. "
        f"{results.where}\n"
    )
    values = {name: results.values(name, "test", **chosen(lesson)) for name, lesson in lessons.items()}
    print(comparison(values, against=("ce", "kd")))
    print("\nLearning rates: " + ", ".join(f"{name} {lesson.lr:g}" for name, lesson in lessons.items()))
    scales = {name: scale_of(METHODS[name], lesson) for name, lesson in lessons.items()}
    if any(abs(scale - 1) > TINY for scale in scales.values()):
        print("Weights times: " + ", ".join(f"{name} {scale:.2g}" for name, scale in scales.items()))


def scale_of(recipe: Recipe, lesson: Lesson) -> float:
    """By what the weights of a method were multiplied."""
    for name, loss in lesson.losses().items():
        said = recipe[name]
        if name != "ce":
            return float(loss.weight / (said["weight"] if isinstance(said, Mapping) else said))
    return 1.0


if __name__ == "__main__":
    main()
