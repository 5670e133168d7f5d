"""A text classifier and a vision transformer through distil, quantise, export and profile: what is shipped, how good?

python benchmarks/distill_chain.py [--quick] [--seeds 0,1,2] [--only text,vit] [--target openvino-cpu] [--json FILE]

For each network and seed `compress` trains a teacher, teaches a student, quantises it, exports all of them, measures
them in turn in the target's runtime and chooses. Then it trains the same student on the labels alone, for as many
epochs at the same rate: what distillation has to beat. The texts are examples/text_data.py's, of which a tenth of the
verbs occur in test sentences alone; the vision transformers are examples/vit.py's, on shapes as examples/my_data.py
draws them. Epochs and what is shipped are chosen on validation samples. Every accuracy is on the test samples, in the
runtime. How hard the two tasks are and how long is trained (the second setting for texts, the sixth for images) was
chosen by what seed 0 reached, so that teachers come to 85 to 99 %: take the other seeds for the comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seeds
from pairs import machine

from edgepress import compress
from edgepress.pipeline.api import Result
from edgepress.pipeline.report.schema import Report, Variant
from edgepress.targets.statistics import Latency, ratio

EXAMPLES = Path(__file__).parent.parent / "examples"
DROP = 3.0  # points below the teacher, on validation samples, that what is shipped may lose
ALONE = {"distill.ce": 1, "distill.kd": 0, "quantize": "off", "profile.seconds": 2}  # the labels, and nothing else
SHIPPED = "shipped "  # begins the figure whose name says which variant was


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A teacher and its student. networks: their file in examples/. files: what else decides the figures.

    data: a source, or splits that are drawn for each run. settings: of the recipe, the same for every seed.
    """

    networks: str
    files: tuple[str, ...]
    data: Callable[[], str | Mapping[str, Any]]
    settings: Mapping[str, Any]
    quick: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """Whatever decides the figures beside the command line."""
        files = b"".join((EXAMPLES / name).read_bytes() for name in (self.networks, *self.files))
        return {**self.settings, "shapes": SHAPES, "files": hashlib.sha256(files).hexdigest()}

    def run(self, folder: Path, options: argparse.Namespace, *, seed: int, **changes: Any) -> Result:
        file = EXAMPLES / self.networks
        settings = {"prune": "off", "training_precision": options.precision, **TIMED, **self.settings}
        settings |= self.quick if options.quick else {}
        return compress(
            model=f"{file}:teacher", student=f"{file}:student", data=self.data(), settings=settings | changes,
            target=options.target, seed=seed, out=folder, quiet=True,
        )  # fmt: skip


def shapes() -> dict[str, Any]:
    """Fewer of them to learn from than in the example, which would be too easy, and more to test on."""
    import my_data

    drawn = {name: my_data.draw(count, seed=place) for place, (name, count) in enumerate(SHAPES.items())}
    return {**drawn, "classes": my_data.CLASSES}


TIMED = {"profile.memory": False, "profile.all_cores": False, "profile.layers": False}
SHORT = {"train.epochs": 1, "distill.epochs": 1, "quantize.epochs": 0, "profile.seconds": 1}
SHAPES = {"train": 400, "val": 600, "test": 1000}
PATCHES = {"size": 32, "channels": 3, "num_classes": 4, "patch": 8}
CHAINS = {
    "text": Chain(
        networks="text_model.py",
        files=("text_data.py", "attention.py"),
        data=lambda: f"{EXAMPLES / 'text_data.py'}:requests",
        settings={
            "train": {"epochs": 12, "lr": 1e-3, "batch_size": 64},
            "distill": {"epochs": 30, "lr": 3e-3, "batch_size": 64},
            "quantize": {"epochs": 2, "batch_size": 64},
            "budget.accuracy_drop": DROP,
        },
        quick={**SHORT, "data.limit": 200},
    ),
    "vit": Chain(
        networks="vit.py",
        files=("my_data.py", "attention.py"),
        data=shapes,
        settings={
            "model.arguments": PATCHES,
            "student.arguments": PATCHES,
            "data.augment": ["flip", "crop"],
            "train": {"epochs": 40, "lr": 1e-3, "batch_size": 64},
            "distill": {"epochs": 48, "lr": 2e-3, "batch_size": 64},
            "quantize": {"epochs": 2, "batch_size": 64},
            "budget.accuracy_drop": DROP,
        },
        quick={**SHORT, "data.limit": 200},
    ),
}


def figures(taught: Report, alone: Report) -> dict[str, float]:
    """What the two runs of one network and seed say, as plain numbers."""
    variants = {variant.name: variant for variant in taught.variants}
    shipped, teacher = variants[taught.chosen.name], variants["baseline"]
    twin = variants[twin_of(shipped)]
    plain = next(variant for variant in alone.variants if variant.name == "distilled")
    low, high = _accuracy(shipped).ci95
    found = {
        "teacher": _accuracy(teacher).value,
        "plain": _accuracy(plain).value,
        "distilled": _accuracy(variants["distilled"]).value,
        "accuracy": _accuracy(shipped).value,
        "accuracy_low": low,
        "accuracy_high": high,
        "n": float(_accuracy(shipped).n),
        "bytes": float(shipped.size_bytes),
        "teacher_bytes": float(teacher.size_bytes),
        f"{SHIPPED}{shipped.name}": 1.0,
    }
    return {**found, **_times("twin", twin, shipped), **_times("teacher", teacher, shipped)}


def twin_of(shipped: Variant) -> str:
    """The name of the same network in float32: the student's where it was quantised."""
    if shipped.twin_of is not None:
        return shipped.twin_of
    return "distilled" if shipped.precision == "int8" else shipped.name


def _accuracy(variant: Variant) -> Any:
    assert variant.accuracy is not None, f"{variant.name} was measured: {variant.warnings}"
    return variant.accuracy


def _times(name: str, slow: Variant, fast: Variant) -> dict[str, float]:
    """How many times faster, with the 95 % interval; 1 where both are the same file."""
    if slow.name == fast.name:
        return {f"faster_than_{name}": 1.0, f"faster_than_{name}_low": 1.0, f"faster_than_{name}_high": 1.0}
    found = ratio(_latency(slow), _latency(fast))
    return {
        f"faster_than_{name}": found.value,
        f"faster_than_{name}_low": found.low,
        f"faster_than_{name}_high": found.high,
    }


def _latency(variant: Variant) -> Latency:
    assert variant.latency_ms is not None, f"{variant.name} was timed: {variant.warnings}"
    return Latency(
        samples_ms=tuple(map(tuple, variant.latency_ms.samples)), threads=variant.latency_ms.threads,
        rounds_by_load=tuple(variant.latency_ms.rounds_by_load),
    )  # fmt: skip


def by_network(found: seeds.Results, names: list[str]) -> str:
    """What distillation is good for, over the seeds."""
    rows = []
    for name in names:
        taught, alone = found.values(name, "distilled"), found.values(name, "plain")
        columns = [
            seeds.mean_sd(list(found.values(name, key).values()))
            for key in ("teacher", "plain", "distilled", "accuracy")
        ]
        count = next(iter(found.values(name, "n").values()))
        rows.append([name, *columns, seeds.difference(taught, alone), f"{count:.0f}", len(taught)])
    head = ["network", "teacher, %", "plain student, %", "distilled, %", "shipped, %", "distilled less plain (95 %)",
            "test samples", "seeds"]  # fmt: skip
    return seeds.table(head, rows)


def by_seed(found: seeds.Results, names: list[str]) -> str:
    """What was shipped in each run."""
    rows = []
    for name in names:
        for seed, figure in sorted(found.by_name()[name].items()):
            shipped = next(key.removeprefix(SHIPPED) for key in figure if key.startswith(SHIPPED))
            accuracy = f"{figure['accuracy']:.2f} ({figure['accuracy_low']:.2f} to {figure['accuracy_high']:.2f})"
            sizes = f"{figure['teacher_bytes'] / 1024:.0f} → {figure['bytes'] / 1024:.0f}"
            rows.append(
                [f"{name}, {seed}", shipped, accuracy, *(_ratio(figure, of) for of in ("twin", "teacher")), sizes]
            )
    head = ["network, seed", "shipped", "accuracy, % (95 %)", "times faster than its float twin (95 %)",
            "than the teacher (95 %)", "size, KiB"]  # fmt: skip
    return seeds.table(head, rows)


def _ratio(figure: Mapping[str, float], of: str) -> str:
    value, low, high = (figure[f"faster_than_{of}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.2f} ({low:.2f} to {high:.2f})" if low < high else "is it"


def once(name: str, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Both runs of one network and seed; the second finds the first one's teacher."""
    out = folder / f"{name}-{seed}"
    taught = CHAINS[name].run(out, options, seed=seed).report
    return figures(taught, CHAINS[name].run(out, options, seed=seed, **ALONE).report)


def main() -> None:
    parser = seeds.parser(__doc__)
    parser.add_argument("--target", default="openvino-cpu", help="a profile (default: openvino-cpu)")
    options = parser.parse_args()
    names = seeds.wanted(options, list(CHAINS))
    sys.path.insert(0, str(EXAMPLES))
    decides = {"quick": options.quick, "target": options.target, "precision": options.precision}
    found = seeds.Results(file=options.json, settings=decides)
    with contextlib.ExitStack() as stack:
        folder = options.keep or (options.json.with_suffix("") if options.json else None)
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chain-")))
        for seed in seeds.seeds_of(options):
            for name in names:
                facts = CHAINS[name].facts()
                found.run(name, seed, lambda name=name, seed=seed: once(name, seed, options, folder), chain=facts)
    print(f"{options.target}; {machine()}\n\n{by_network(found, names)}\n\n{by_seed(found, names)}")


if __name__ == "__main__":
    main()
