"""Hinton's experiment on MNIST: how many test errors a student makes with and without its teacher.

python benchmarks/distill_mnist.py --data mnist:FOLDER [--precision bf16] [--only NAME,...] [--json FILE] [--choose]

Hinton, Vinyals, Dean, 2015 (arXiv:1503.02531), section 3: a teacher of two hidden layers of 1200 units with dropout,
a limit on the length of each unit's weights and images moved by up to 2 pixels; a student of 800 and 800 units without
any of that. The student's transfer set is not moved: what it knows of moved digits comes from the teacher. Then the
student that never sees a 3, and the one that sees 3 % of the images.

Teacher, plain and distilled student learn from all 60 000 training images and their last epoch counts, so that neither
settings nor epoch are chosen on test images. The settings were: --choose holds 10 000 training images back and tells
the errors on those.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from distill_runs import Room, errors, joined, room
from seeds import Results, interval, mean_sd, parser, seeds_of, table, wanted
from torch import Tensor, nn

from edgepress.stages.evaluation import logits
from edgepress.stages.lesson import Lesson
from edgepress.stages.splits import Split, divide

MISSING = 3  # the digit that the student never sees
SHARE = 0.03  # of the training images in the small transfer set
HELD = 5_000  # images to choose an epoch by, where the training set is a part
LONGEST = 15**0.5  # length of the weights that reach a unit: Hinton et al., 2012 (arXiv:1207.0580), appendix A.1
PAPER = {"teacher": "67", "plain": "146", "distilled": "74", "missing": "206", "missing, bias": "109"}

TEACHER = Lesson(epochs=150, lr=1e-3, batch_size=256, optimizer="adamw", weight_decay=0.0)
STUDENT = Lesson(epochs=100, lr=0.1, batch_size=256, optimizer="sgd", weight_decay=0.0)
TEMPERATURE = 20.0
CE_SHARE = 0.1  # of the labels in the distilled student's loss


class Limited(nn.Linear):
    """A linear layer in which no unit's incoming weights are longer than LONGEST: shortened before every use."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            lengths = self.weight.norm(dim=1, keepdim=True)
            self.weight.mul_((LONGEST / lengths).clamp(max=1.0))
        return super().forward(x)


class Dropout(nn.Module):
    """Dropout with one random byte for each input: torch's own took a third of the training's time on a CPU."""

    def __init__(self, of_256: int) -> None:
        """of_256: how many of 256 inputs become 0; the others grow, so that the mean stays."""
        super().__init__()
        self.of_256 = of_256

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        words = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 7) // 8,), device=x.device)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.of_256
        return x * kept * (256 / (256 - self.of_256))


def teacher() -> nn.Module:
    """784-1200-1200-10 with dropout of a fifth of the pixels and half of the units."""
    return nn.Sequential(
        nn.Flatten(), Dropout(51),
        Limited(784, 1200), nn.ReLU(), Dropout(128),
        Limited(1200, 1200), nn.ReLU(), Dropout(128),
        nn.Linear(1200, 10),
    )  # fmt: skip


def student() -> nn.Module:
    """784-800-800-10."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 800), nn.ReLU(), nn.Linear(800, 800), nn.ReLU(), nn.Linear(800, 10)
    )


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the runs share."""

    place: Room
    teaching: Lesson
    learning: Lesson

    def taught(self, seed: int) -> nn.Module:
        """The teacher of a seed, trained once."""
        moved = self.place.with_data(augment=("shift",))
        return moved.kept("teacher", teacher, self.teaching, seed=seed, last=True)

    def run(self, name: str, seed: int, *, distilled: bool, split: Split, moved: bool = False) -> nn.Module:
        """A student's last epoch on a transfer set."""
        place = self.place.with_data(train=split, augment=("shift",) if moved else ())
        big = self.taught(seed) if distilled else None
        return place.train(name, student, lesson_of(self.learning, distilled), seed=seed, teacher=big, last=True)


def lesson_of(base: Lesson, distilled: bool, *, labels: bool = True) -> Lesson:
    """The same training with a teacher, or without."""
    if not distilled:
        return base
    ce = CE_SHARE if labels else 0.0
    return replace(base, ce=ce, kd=1 - ce, temperature=TEMPERATURE)


def on_teacher(setting: Setting, seed: int) -> dict[str, float]:
    return {"errors": errors(setting.taught(seed), setting.place.data)}


def on_student(setting: Setting, seed: int, *, name: str, distilled: bool, moved: bool) -> dict[str, float]:
    split = setting.place.data.train
    assert split is not None
    net = setting.run(name, seed, distilled=distilled, split=split, moved=moved)
    return {"errors": errors(net, setting.place.data)}


def without_a_digit(setting: Setting, seed: int, *, name: str, distilled: bool) -> dict[str, float]:
    """Learn from every image but the 3s; then raise the 3's bias until as many training images are called 3 as are.

    No label of a 3 is used for that, only how many there are; the paper chose the bias on the test images.
    """
    data = setting.place.data
    assert data.train is not None
    others = data.train.subset((data.train.labels() != MISSING).nonzero().flatten())
    place = setting.place.with_data(train=others)
    lesson = lesson_of(setting.learning, distilled, labels=False)
    big = setting.taught(seed) if distilled else None
    net = place.train(name, student, lesson, seed=seed, teacher=big, last=True)
    answers, labels = logits(net, data.test, data.preprocessing)
    seen, truth = logits(net, data.train, data.preprocessing)
    raise_by = bias_for(seen, MISSING, share=float((truth == MISSING).float().mean()))
    return {**wrong(answers, labels, ""), **wrong(raised(answers, raise_by), labels, ", bias"), "bias": raise_by}


def bias_for(answers: Tensor, digit: int, *, share: float) -> float:
    """What must be added to a class's logit so that this share of the answers is that class."""
    others = answers.clone()
    others[:, digit] = -torch.inf
    gap = others.max(dim=1).values - answers[:, digit]
    return float(torch.quantile(gap, share))


def raised(answers: Tensor, by: float) -> Tensor:
    return answers + by * nn.functional.one_hot(torch.tensor(MISSING), answers.shape[1])


def wrong(answers: Tensor, labels: Tensor, suffix: str) -> dict[str, float]:
    """Errors, and per cent of the missing digit that is answered rightly."""
    right = answers.argmax(dim=1) == labels
    of_digit = 100 * float(right[labels == MISSING].float().mean())
    return {f"errors{suffix}": int((~right).sum()), f"of 3s right, %{suffix}": of_digit}


def from_a_fraction(setting: Setting, seed: int, *, name: str, distilled: bool) -> dict[str, float]:
    """Learn from 3 % of the images, the same for both students; the epoch is chosen on others."""
    data = setting.place.data
    assert data.train is not None
    generator = torch.Generator().manual_seed(seed)
    few, rest = divide(data.train.labels(), SHARE, generator=generator)
    held = rest[torch.randperm(len(rest), generator=generator)[:HELD]]
    place = setting.place.with_data(train=data.train.subset(few), val=data.train.subset(held))
    lesson = replace(lesson_of(setting.learning, distilled), batch_size=64, epochs=4 * setting.learning.epochs)
    net = place.train(name, student, lesson, seed=seed, teacher=setting.taught(seed) if distilled else None)
    return {"errors": errors(net, data)}


RUNS: dict[str, Callable[[Setting, int], dict[str, float]]] = {
    "teacher": on_teacher,
    "plain": partial(on_student, name="plain", distilled=False, moved=False),
    "distilled": partial(on_student, name="distilled", distilled=True, moved=False),
    "plain-moved": partial(on_student, name="plain-moved", distilled=False, moved=True),
    "distilled-moved": partial(on_student, name="distilled-moved", distilled=True, moved=True),
    "missing": partial(without_a_digit, name="missing", distilled=True),
    "missing-labels": partial(without_a_digit, name="missing-labels", distilled=False),
    "fraction": partial(from_a_fraction, name="fraction", distilled=True),
    "fraction-labels": partial(from_a_fraction, name="fraction-labels", distilled=False),
}
GRID = (0.03, 0.1, 0.3)  # learning rates of the student that --choose tries


def main() -> None:
    options = arguments()
    with room(options, mean=(0.0,), std=(1.0,), limit=400 if options.quick else None) as found:
        assert found.data.train is not None
        whole = joined(found.data.train, found.data.val)
        place = found.with_data(train=whole)
        teaching = replace(TEACHER, epochs=options.teacher_epochs or (1 if options.quick else TEACHER.epochs))
        learning = replace(STUDENT, epochs=options.epochs or (1 if options.quick else STUDENT.epochs))
        results = Results(file=options.json, settings={
            "teacher": teaching.epochs, "student": learning.epochs, "precision": options.precision,
            "images": len(whole), "choose": options.choose,
        })  # fmt: skip
        if options.choose:
            choose(Setting(place=held_back(place), teaching=teaching, learning=learning), results)
            return
        setting = Setting(place=place, teaching=teaching, learning=learning)
        for seed in seeds_of(options):
            for name in wanted(options, list(RUNS)):
                results.run(name, seed, partial(RUNS[name], setting, seed))
        report(results, setting)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, data="mnist:FOLDER")
    made.add_argument("--choose", action="store_true", help="compare learning rates on held-back training images")
    made.add_argument("--teacher-epochs", type=int, help=f"default: {TEACHER.epochs}")
    made.add_argument("--epochs", type=int, help=f"of the student (default: {STUDENT.epochs})")
    return made.parse_args()


def held_back(place: Room) -> Room:
    """Five sixths of the training images to learn from, and the others in place of the test images."""
    assert place.data.train is not None
    held, rest = divide(place.data.train.labels(), 1 / 6, generator=torch.Generator().manual_seed(0))
    train = place.data.train
    chosen = place.with_data(train=train.subset(rest), test=train.subset(held))
    return replace(chosen, folder=place.folder / "choose")


def choose(setting: Setting, results: Results) -> None:
    """Errors on the held-back images, by learning rate."""
    rows = [["teacher", setting.teaching.lr, results.run("teacher", 0, partial(on_teacher, setting, 0))["errors"]]]
    for name in ("plain", "distilled"):
        for lr in GRID:
            tried = replace(setting, learning=replace(setting.learning, lr=lr))
            rows.append([name, lr, results.run(name, 0, partial(RUNS[name], tried, 0), lr=lr)["errors"]])
    print(f"Errors on {len(setting.place.data.test)} training images that were held back, {results.where}\n")
    print(table(["", "learning rate", "errors"], rows))


def report(results: Results, setting: Setting) -> None:
    """The tables of whatever has been run."""
    found = results.by_name()
    print(f"{len(setting.place.data.test)} test images, {setting.teaching.epochs} epochs of the teacher and "
          f"{setting.learning.epochs} of the student, {results.where}\n")  # fmt: skip
    rows = []
    for name, figures in found.items():
        for figure in next(iter(figures.values())):
            if figure.startswith("errors"):
                values = [one[figure] for one in figures.values()]
                label = name + figure.removeprefix("errors")
                each = ", ".join(f"{value:.0f}" for value in values)
                rows.append([label, each, mean_sd(values, 1), len(values), PAPER.get(label, "")])
    print(table(["run", "test errors", "mean ± sd", "n", "in the paper"], rows))
    if {"plain", "distilled"} <= found.keys():
        print(f"\nDistilled against plain: {fewer(found)}")
    for name in ("missing", "missing-labels"):
        for seed, one in found.get(name, {}).items():
            print(f"\n{name}, seed {seed}: of the test 3s {one['of 3s right, %']:.1f} % right, with the bias raised by "
                  f"{one['bias']:.2f} {one['of 3s right, %, bias']:.1f} %")  # fmt: skip


def fewer(found: dict[str, dict[int, dict[str, float]]]) -> str:
    """How much the teacher saves, paired by seed."""
    plain, distilled = found["plain"], found["distilled"]
    saved = [100 * (1 - distilled[seed]["errors"] / plain[seed]["errors"]) for seed in distilled if seed in plain]
    middle, low, high = interval(saved)
    return f"{middle:.0f} % fewer errors (95 % interval {low:.0f} to {high:.0f}, n = {len(saved)})"


if __name__ == "__main__":
    main()
