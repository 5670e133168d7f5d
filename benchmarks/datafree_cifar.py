"""CIFAR-10 without CIFAR-10: ResNets in INT8, and ResNet-56 as the teacher of ResNet-20, from images that are made.

python benchmarks/datafree_cifar.py --data imagefolder:FOLDER --resnet20 FILE --resnet56 FILE [--digits mnist:FOLDER]
    [--only PART,...] [--epochs N] [--json FILE]

--resnet20, --resnet56: weights that are named as in examples/my_model.py; a network without a file is left out.
Calibration and training in INT8 see, in turn: training images; images that are optimised from the network's batch norms
(ZeroQ, Cai et al., 2020, arXiv:2001.00281), noise, and with --digits another task's images. Everybody gets as many of
them, --images, and the default settings of the quantize stage, for 100 updates of 64. Distillation is FastDFKD's (Fang
et al., 2022, arXiv:2112.06253) for --epochs epochs of --rounds batches; its controls get as many updates. Epochs are
chosen on images of the same kind. Accuracy is of all test images in OpenVINO, which nothing else has seen. Goal: INT8
without data within 0.5 points of INT8 with data.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from deployed import accuracy_there, in_int8
from distill_nets import resnet20, resnet56
from distill_runs import Loud, Room, room
from PIL import Image
from seeds import Results, difference, mean_sd, parser, seeds_of, table, wanted
from torch import nn

from edgepress.pipeline.teachers import fingerprint
from edgepress.stages.artifact import Artifact
from edgepress.stages.data import Data, open_data
from edgepress.stages.lesson import Lesson
from edgepress.stages.quantize import Quantize
from edgepress.stages.settings import DataSettings
from edgepress.stages.splits import thin
from edgepress.stages.synthesis.open import open_synthetic
from edgepress.stages.synthesis.settings import Synthesis
from edgepress.stages.weights import load_weights_

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # as the published weights want it
BUILD: dict[str, Callable[[int], nn.Module]] = {"resnet20": resnet20, "resnet56": resnet56}
IMAGES, EPOCHS, ROUNDS, DIGITS = 128, 40, 60, 2000
UPDATES = 100  # of a network in INT8, whose epochs are short where images are few
VAL_SHARE = 0.04  # of the training images, where they choose epochs
LESSON = Lesson(epochs=EPOCHS, lr=0.1, batch_size=128, optimizer="sgd", weight_decay=5e-4, ce=0.0, kd=1.0)
KINDS = ("data", "optimised", "noise", "digits")  # what a network in INT8 sees
QUICK, HURRIED = {"epochs": 1, "batch_size": 32}, {"batch": 8, "width": 4, "restarts": 1}
WAYS = {"ptq": Quantize(epochs=0), "qat": Quantize()}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Real images, networks that were trained on them, and pictures of another kind. files: weights, by network."""

    place: Room
    source: str
    files: Mapping[str, Path]
    digits: Path | None
    images: int
    steps: int | None
    rounds: int
    lesson: Lesson
    quick: bool

    def float32(self, seed: int, *, name: str) -> dict[str, float]:
        """The network as it is given."""
        return {"test": self.there(self.network(name), f"{name}-float")}

    def int8(self, seed: int, *, name: str, way: str, kind: str) -> dict[str, float]:
        """The network in INT8, calibrated or trained, with one kind of images."""
        net = self.network(name)
        data = self.few(kind, net, seed)
        settings = replace(WAYS[way], batch_size=32 if self.quick else 64)
        if settings.epochs:
            assert data.train is not None
            updates = 2 if self.quick else UPDATES
            settings = replace(settings, epochs=max(1, round(updates * settings.batch_size / len(data.train))))
        began, run = time.perf_counter(), f"{name}-{way}-{kind}-{seed}"
        artifact = in_int8(net, settings, data, self.place.folder / "work" / run, seed=seed)
        seconds = time.perf_counter() - began
        figures = {"test": self.there(artifact, run), "seconds": seconds}
        return figures if data.synthetic is None else {**figures, "making": data.synthetic.seconds}

    def student(self, seed: int, *, kind: str) -> dict[str, float]:
        """ResNet-20 from scratch, from ResNet-56 and one kind of images."""
        began, teacher = time.perf_counter(), self.network("resnet56")
        data = self.place.data
        if kind != "data":
            data = self.made(kind, teacher, seed, augment=("flip", "crop"), images=32 if self.quick else None)
        assert data.train is not None
        lesson, updates = self.lesson, self.lesson.epochs * self.rounds
        if kind != "generated":  # as many updates, on what there is
            lesson = replace(lesson, epochs=max(1, round(updates * lesson.batch_size / len(data.train))))
        build = partial(resnet20, len(self.place.data.classes))
        place = replace(self.place, data=data)
        net = place.train(f"student-{kind}", build, lesson, seed=seed, teacher=teacher)
        seconds = time.perf_counter() - began
        return {"test": self.there(net, f"student-{kind}-{seed}"), "seconds": seconds}

    def network(self, name: str) -> nn.Module:
        net = BUILD[name](len(self.place.data.classes))
        load_weights_(net, self.files[name])
        return net.eval()

    def few(self, kind: str, net: nn.Module, seed: int) -> Data:
        """As many images of each kind: four fifths calibrate and train, the rest chooses epochs."""
        if kind != "data":
            return self.made(kind, net, seed, augment=(), images=self.images)
        data, count = self.place.data, round(0.8 * self.images)
        assert data.train is not None
        train = data.train.subset(thin(data.train.labels(), count, seed=seed))
        val = data.val.subset(thin(data.val.labels(), self.images - count, seed=seed))
        return replace(data, train=train, val=val, augment=(), fingerprint=f"{data.fingerprint}-{count}-{seed}")

    def made(self, kind: str, net: nn.Module, seed: int, *, augment: tuple[str, ...], images: int | None) -> Data:
        """Images that are not data of the task; they are kept, and found again by the next run that wants the same."""
        steps = None if kind == "generated" and not self.quick else self.steps
        settings = DataSettings(
            source=f"images:{self.digits}" if kind == "digits" else kind,
            shape=self.place.data.shape,
            eval=self.source,
            augment=augment,  # type: ignore[arg-type]
            limit=images if kind == "digits" else None,
            synthesis=Synthesis(rounds=self.rounds, images=images, steps=steps, **(HURRIED if self.quick else {})),
            **IMAGENET,
        )
        return open_synthetic(
            settings, teacher=net, fingerprint=fingerprint(net), seed=seed, cache=self.place.folder / "images",
            progress=Loud(f"{kind} images, seed {seed}"),
        )  # fmt: skip

    def there(self, network: nn.Module | Artifact, run: str) -> float:
        return accuracy_there(network, self.place.data, self.place.folder / "work" / run)


def runs(bench: Bench) -> dict[str, Callable[[int], dict[str, float]]]:
    """Every run that these files allow, by name."""
    kinds = [kind for kind in KINDS if kind != "digits" or bench.digits is not None]
    found: dict[str, Callable[[int], dict[str, float]]] = {}
    for name in bench.files:
        found[f"{name}-float"] = partial(bench.float32, name=name)
        for way in WAYS:
            for kind in kinds:
                found[f"{name}-{way}-{kind}"] = partial(bench.int8, name=name, way=way, kind=kind)
    if "resnet56" in bench.files:
        found |= {f"student-{kind}": partial(bench.student, kind=kind) for kind in ("data", "generated", *kinds[2:])}
    return found


def main() -> None:
    options = arguments()
    files = {name: path for name in BUILD if (path := getattr(options, name)) is not None}
    if not files:
        sys.exit("give the weights of a network: --resnet20 FILE, --resnet56 FILE, or both")
    with room(options, limit=100 if options.quick else None, augment=("flip", "crop"), val_share=VAL_SHARE,
              **IMAGENET) as place:  # fmt: skip
        rounds = 2 if options.quick else options.rounds
        bench = Bench(
            place=place, source=options.data, files=files, images=32 if options.quick else options.images,
            digits=pictures_of(options.digits, place.folder / "digits", few=options.quick), rounds=rounds,
            steps=2 if options.quick else options.steps, quick=options.quick,
            lesson=replace(LESSON, **(QUICK if options.quick else {"epochs": options.epochs})),
        )  # fmt: skip
        results = Results(file=options.json, settings={
            "test": len(place.data.test), "images": bench.images, "steps": bench.steps, "epochs": bench.lesson.epochs,
            "rounds": rounds, "precision": options.precision,
            "files": {name: path.name for name, path in files.items()},
        })  # fmt: skip
        there = runs(bench)
        names = wanted(options, list(there))
        for name in files:
            if any(one.startswith(name) for one in names):
                results.run(f"{name}-float", 0, partial(there[f"{name}-float"], 0))
        for seed in seeds_of(options):
            for name in names:
                if not name.endswith("-float"):
                    extra = {"updates": UPDATES} if "-qat-" in name else {}
                    results.run(name, seed, partial(there[name], seed), **extra)
        report(results, bench)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, data="imagefolder:FOLDER")
    for name in BUILD:
        made.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"weights of a {name}")
    made.add_argument("--digits", metavar="SOURCE", help="data of another task, such as mnist:FOLDER, as a control")
    made.add_argument("--images", type=int, default=IMAGES, help=f"for INT8, of each kind (default: {IMAGES})")
    made.add_argument("--steps", type=int, help="of optimising a batch of images (default: the method's own)")
    made.add_argument("--epochs", type=int, default=EPOCHS, help=f"of the student (default: {EPOCHS})")
    made.add_argument("--rounds", type=int, default=ROUNDS, help=f"batches of an epoch (default: {ROUNDS})")
    return made.parse_args()


def pictures_of(source: str | None, folder: Path, *, few: bool) -> Path | None:
    """The training images of another task as files in a folder, written once."""
    if source is None:
        return None
    count = 32 if few else DIGITS
    folder = folder.with_name(f"{folder.name}-{count}")
    if not folder.is_dir():
        data = open_data(DataSettings(source=source, limit=count), seed=0, cache=folder.parent, given_weights=False)
        assert data.train is not None
        part = folder.with_name(f"{folder.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(data.train.read(torch.arange(len(data.train)))):
            pixels = image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(part / f"{number:05}.png")
        part.rename(folder)
    return folder


def report(results: Results, bench: Bench) -> None:
    """Two tables: networks in INT8, and students."""
    data, found = bench.place.data, results.by_name()
    print(f"CIFAR-10; {len(data.test)} test images, answered by OpenVINO. {results.where}\n")
    rows = []
    for name in bench.files:
        for way in WAYS:
            values = {kind: results.values(f"{name}-{way}-{kind}", "test") for kind in KINDS}
            if any(values.values()):
                rows.append([
                    f"{name}, {way}", mean_sd(list(results.values(f"{name}-float", "test").values())),
                    *(mean_sd(list(one.values())) if one else "" for one in values.values()),
                    difference(values["optimised"], values["data"]), max(map(len, values.values())),
                ])  # fmt: skip
    if rows:
        head = ["in INT8", "float, %", *(f"{kind}, %" for kind in KINDS), "optimised less data (95 %)", "n"]
        print(f"{bench.images} images of each kind.\n\n{table(head, rows)}\n")
    students = [name for name in found if name.startswith("student-")]
    if students:
        rows = [
            [name, *(mean_sd(list(results.values(name, key).values()), digits) for key, digits in
                     (("test", 2), ("seconds", 0))), len(found[name])]
            for name in students
        ]  # fmt: skip
        updates = bench.lesson.epochs * bench.rounds
        print(f"ResNet-56 teaches ResNet-20, from scratch, {updates} updates of {bench.lesson.batch_size} images.\n")
        print(table(["learns from", "test accuracy, %", "seconds", "n"], rows))


if __name__ == "__main__":
    main()
