"""The whole chain without a digit: LeNet-5 teaches its half, which loses half of its work and becomes INT8.

python benchmarks/datafree_chain.py --data mnist:FOLDER [--method dfq] [--epochs N] [--recovery N]
    [--exclude MODULE,...] [--json FILE]

The teacher learns from the training images once. After that every stage sees made images alone: distillation, recovery
after pruning to half the student's multiply-accumulates (counted, not timed), calibration and training in INT8, and the
choice of epochs. The accuracy of each network is that of its exported file on all test images, in OpenVINO; nothing
else sees those. LeNet's layers are so narrow that channels are removed one by one and not, as usual for this target, by
eight. Left to itself pruning leaves 2 and 4 channels in the two first layers, by what removing them does to the answers
before any recovery; 1 and 8 recover better, so the second is excluded. Goal: at most 0.5 points from the student in
float to what is shipped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from datafree_mnist import HURRIED, MEAN, ROUNDS, STD, TEACHER
from datafree_nets import lenet5, lenet5_half
from deployed import PROFILE, accuracy_there
from distill_runs import Loud, Room, room
from seeds import Results, interval, mean_sd, parser, seeds_of, table
from torch import Tensor, nn

from edgepress.pipeline.teachers import fingerprint
from edgepress.stages.artifact import Artifact, Context
from edgepress.stages.contract import InputContract
from edgepress.stages.data import Data
from edgepress.stages.distill.stage import Distill
from edgepress.stages.lesson import Lesson
from edgepress.stages.prune import Prune
from edgepress.stages.pruning import count_macs
from edgepress.stages.quantize import Quantize
from edgepress.stages.settings import DataSettings
from edgepress.stages.synthesis.open import open_synthetic
from edgepress.stages.synthesis.settings import Synthesis
from edgepress.targets import profiles

GOAL = 0.5  # points from the student in float to INT8
SHARE = 0.5  # of the student's multiply-accumulates that is left
ABSENT = "jetson-orin-nano-super"
METHOD = "dfq"  # of those that were tried the pruned student recovers best by it
EXCLUDE = ("features.3",)
EPOCHS = 48  # of distillation and of recovery, each of ROUNDS rounds, in which dfq has two steps of the student
NETWORKS = ("teacher", "student", "pruned", "int8")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """place: real images, for the teacher and for the end. recovery: of the pruned student; training: in INT8."""

    place: Room
    synthesis: Synthesis
    teaching: Lesson
    distill: Distill
    recovery: int
    training: int
    exclude: tuple[str, ...] = ()

    def run(self, seed: int) -> dict[str, float]:
        began, teacher = time.perf_counter(), self.place.kept("teacher", lenet5, self.teaching, seed=0)
        data = self.data(teacher, seed)
        where = partial(self.context, data, seed)
        contract = InputContract(
            shape=data.shape, dynamic_batch=False, preprocessing=data.preprocessing, classes=data.classes
        )
        start = Artifact(module=teacher, contract=contract, base="model", key="0" * 16)
        student = self.distill.run(start, where("distill"))
        how = Prune(
            epochs=self.recovery, lr=1.5 * self.distill.lr, batch_size=self.distill.batch_size, weight_decay=0.0,
            exclude=self.exclude,
        )  # fmt: skip
        pruned = how.run(student, self.counting(where("prune")))
        int8 = Quantize(mode="qat", epochs=self.training).run(pruned, where("quantize"))
        seconds = time.perf_counter() - began
        found = {
            name: self.there(one, seed) for name, one in zip(NETWORKS, (start, student, pruned, int8), strict=True)
        }
        left = count_macs(pruned.module, example(pruned)) / count_macs(student.module, example(student))
        return {**found, "work_left": 100 * left, "seconds": seconds}

    def data(self, teacher: nn.Module, seed: int) -> Data:
        """Images that are made from the teacher."""
        settings = DataSettings(
            source="generated", shape=self.place.data.shape, mean=MEAN, std=STD, synthesis=self.synthesis,
            augment=("shift",),
        )  # fmt: skip
        return open_synthetic(
            settings, teacher=teacher, fingerprint=fingerprint(teacher), seed=seed, cache=self.place.folder / "made"
        )

    def context(self, data: Data, seed: int, stage: str) -> Context:
        profile = profiles.load(PROFILE).model_copy(update={"channel_multiple": 1})
        return Context(
            data=data, profile=profile, work=self.work(seed) / stage, seed=seed, cache=self.place.folder / "answers",
            build={"model": lenet5, "student": lenet5_half}, training_precision=self.place.precision,
            progress=Loud(f"{stage}, seed {seed}"),
        )  # fmt: skip

    def counting(self, context: Context) -> Context:
        """Where multiply-accumulates are counted in place of milliseconds: towards a board that is not here."""
        profile = profiles.load(ABSENT).model_copy(update={"channel_multiple": 1})
        return replace(context, profile=profile, goals={"speedup": 1 / SHARE}, tables=context.work / "tables")

    def there(self, artifact: Artifact, seed: int) -> float:
        network = artifact.module if artifact.scheme is None else artifact
        return accuracy_there(network, self.place.data, self.work(seed))

    def work(self, seed: int) -> Path:
        return self.place.place_of(f"chain-{self.synthesis.method}", self.distill, seed)


def example(artifact: Artifact) -> Tensor:
    return artifact.contract.preprocessing.example(1)


def main() -> None:
    options = arguments()
    few: Mapping[str, int] = HURRIED if options.quick else {"rounds": ROUNDS}
    epochs = 1 if options.quick else options.epochs
    with room(options, mean=MEAN, std=STD, limit=300 if options.quick else None) as place:
        chain = Chain(
            place=place,
            synthesis=Synthesis(method=options.method, **few),  # type: ignore[arg-type]
            teaching=TEACHER if not options.quick else Lesson(epochs=1, lr=0.05, optimizer="sgd"),
            distill=Distill(epochs=epochs, lr=2e-3, batch_size=256, weight_decay=0.0),
            recovery=1 if options.quick else options.recovery,
            training=1 if options.quick else Quantize().epochs,
            exclude=options.exclude,
        )
        results = Results(file=options.json, settings={
            "test": len(place.data.test), "epochs": epochs, "recovery": chain.recovery, "method": options.method,
            "exclude": list(options.exclude), "precision": options.precision, "shift": True, **few,
        })  # fmt: skip
        for seed in seeds_of(options):
            results.run("chain", seed, partial(chain.run, seed))
        report(results, place.data)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, data="mnist:FOLDER")
    made.add_argument("--method", default=METHOD, help=f"data.synthesis.method (default: {METHOD})")
    made.add_argument("--epochs", type=int, default=EPOCHS, help=f"of distillation (default: {EPOCHS})")
    made.add_argument("--exclude", type=lambda text: tuple(filter(None, text.split(","))), default=EXCLUDE,
                      metavar="MODULE,...", help=f"whose channels stay (default: {','.join(EXCLUDE)})")  # fmt: skip
    made.add_argument("--recovery", type=int, default=EPOCHS, help=f"epochs after pruning (default: {EPOCHS})")
    return made.parse_args()


def report(results: Results, data: Data) -> None:
    """One table, and whether the goal is met."""
    print(f"LeNet-5 to its half without data; {len(data.test)} test images, answered by OpenVINO. {results.where}\n")
    values = {name: results.values("chain", name) for name in (*NETWORKS, "work_left", "seconds")}
    count = len(values["teacher"])
    told = [mean_sd(list(values[name].values())) for name in NETWORKS]
    head = ["", *(f"{name}, %" for name in NETWORKS), "work left by pruning, %", "seconds", "n"]
    rest = [mean_sd(list(values["work_left"].values()), 0), mean_sd(list(values["seconds"].values()), 0), count]
    print(table(head, [["accuracy", *told, *rest]]))
    lost = [values["student"][seed] - values["int8"][seed] for seed in values["student"]]
    middle, low, high = interval(lost)
    spread = "one seed" if count < 2 else f"{low:+.2f} to {high:+.2f}"
    said = "met" if middle <= GOAL else "not met"
    print(
        f"\nFrom the student in float to INT8: {middle:+.2f} points lost ({spread}); at most {GOAL}: {said} on average."
    )


if __name__ == "__main__":
    main()
