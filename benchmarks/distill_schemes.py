"""Do the ways to distil without one plain teacher do what their papers claim? On MNIST, each against its control.

python benchmarks/distill_schemes.py --data mnist:FOLDER [--train N] [--only NAME,...] [--precision bf16] [--json FILE]

Several teachers of which one is confidently wrong, two networks that learn from each other, a network that teaches its
own shallow exits, robustness that is handed on, a teacher that sees more than its student, and new classes without
forgetting the old ones. Few training images, so that a small network still has something to learn. Epochs are chosen on
validation images. "Holds: yes" needs the whole 95 % interval over seeds above the margin.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from distill_families import smaller
from distill_runs import room
from distill_scheme_runs import SCHEMES, Bench
from seeds import Results, interval, mean_sd, parser, seeds_of, table, wanted

from edgepress.stages.distill.losses import LOSSES
from edgepress.stages.lesson import Lesson

LESSON = Lesson(epochs=30, lr=0.1, batch_size=128, optimizer="sgd", weight_decay=5e-4)
TRAIN = 3000


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A paper's claim as an inequality: `ours` exceeds `theirs` by more than `margin` points of a figure.

    theirs: None, where the figure itself must exceed the margin.
    """

    scheme: str
    says: str
    ours: str
    theirs: str | None
    margin: float = 0.0
    figure: str = "test"


CLAIMS = (
    Claim(scheme="teachers", says="CA-MKD (arXiv:2201.00007): weights by confidence bear a bad teacher, alike do not",
          ours="confidence", theirs="alike", margin=0.3),
    Claim(scheme="teachers", says="its weights leave a bad one of three less than 0.2, the good ones more than 80 %",
          ours="shares", theirs=None, figure="good share", margin=80.0),
    Claim(scheme="mutual", says="DML (arXiv:1706.00384): two peers end better than alone",
          ours="mutual", theirs="alone"),
    Claim(scheme="byot", says="BYOT (arXiv:1905.08094): the deepest exit ends better than by labels alone",
          ours="byot", theirs="labels"),
    Claim(scheme="ard", says="ARD (arXiv:1905.09747): robustness of the teacher is handed on, by 20 points at least",
          ours="ard", theirs="kd", margin=20.0, figure="robust"),
    Claim(scheme="modal", says="Gupta et al. (arXiv:1507.00448): a teacher of the whole image helps a student of half",
          ours="half, taught", theirs="half, labels"),
    Claim(scheme="lwf", says="LwF (arXiv:1606.09282): the old task is forgotten less than by fine-tuning",
          ours="lwf", theirs="fine-tuned", figure="old"),
)  # fmt: skip


def main() -> None:
    made = parser(__doc__, data="mnist:FOLDER")
    made.add_argument("--train", type=int, default=TRAIN, help=f"training images (default: {TRAIN})")
    made.add_argument("--epochs", type=int, help=f"default: {LESSON.epochs}")
    options = made.parse_args()
    with room(options, limit=300 if options.quick else None) as found:
        bench = Bench(place=smaller(found, options.train), lesson=replace(LESSON, epochs=epochs_of(options)))
        results = Results(file=options.json, settings={
            "images": len(found.data.test), "train": options.train, "epochs": bench.lesson.epochs,
            "precision": options.precision,
        })  # fmt: skip
        schemes = {name: do for name, do in SCHEMES.items() if name != "byot" or "byot" in LOSSES}
        for seed in seeds_of(options):
            for name in wanted(options, list(schemes)):
                for run, do in schemes[name](bench, seed).items():
                    results.run(f"{name}: {run}", seed, do)
        report(results, bench)


def epochs_of(options: argparse.Namespace) -> int:
    return int(options.epochs or (1 if options.quick else LESSON.epochs))


def report(results: Results, bench: Bench) -> None:
    """What was claimed and what was found, and every figure behind it."""
    found = results.by_name()
    train = bench.place.data.train
    assert train is not None
    print(f"{len(train)} training images, {bench.lesson.epochs} epochs, {len(bench.place.data.test)} test images, "
          f"{results.where}\n")  # fmt: skip
    rows = []
    for claim in CLAIMS:
        ours = results.values(f"{claim.scheme}: {claim.ours}", claim.figure)
        theirs = dict.fromkeys(ours, 0.0)
        if claim.theirs is not None:
            theirs = results.values(f"{claim.scheme}: {claim.theirs}", claim.figure)
        pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        if pairs:
            middle, low, high = interval(pairs)
            means = [mean_sd(list(ours.values())), mean_sd(list(theirs.values())) if claim.theirs else ""]
            told = f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"
            rows.append([claim.says, *means, told, len(pairs), verdict(low, high, claim.margin)])
    print(table(["claim", "with, %", "without, %", "difference (95 %)", "n", "holds"], rows))
    lines = [
        [name, figure, mean_sd([one[figure] for one in figures.values()]), len(figures)]
        for name, figures in found.items()
        for figure in next(iter(figures.values()))
    ]
    print("\n" + table(["run", "figure", "%", "n"], lines))


def verdict(low: float, high: float, margin: float) -> str:
    """Where the interval of a difference lies."""
    if low > margin:
        return "yes"
    return "no" if high < margin else "not shown"


if __name__ == "__main__":
    main()
