"""The recipes for graphs and policies in docs/recipes.md, over seeds: what does the student owe to its teacher?

python benchmarks/distill_recipes.py [--quick] [--seeds 0,1,2] [--only graph,policy] [--json FILE]

graph: for each seed another graph. Accuracy on 1000 papers that taught nobody, neither by label nor by answer, of the
teacher that sees their neighbours, of the student, and of the same network trained on the labels alone.
policy: for each seed another teacher and other games to learn from. How many pushes a game lasts, of at most 500, on
average over 200 games that begin alike for all: of the teacher, of its student's exported file, of one that learned
softer answers, softmax(q) in place of softmax(q / 0.01), and of one that learned what the teacher did (behaviour
cloning).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import seeds
from pairs import machine
from torch import nn

from edgepress import compress
from edgepress.pipeline.api import Result

EXAMPLES = Path(__file__).parent.parent / "examples"
TIMED = {"profile.seconds": 1, "profile.memory": False, "profile.all_cores": False, "profile.layers": False}
SHORT = {"train.epochs": 1, "distill.epochs": 1}
GAMES, GAMES_SEED = 200, 9
UNLABELLED = """import sys
sys.path.insert(0, {examples!r})
import graph

def unlabelled():
    return graph.unlabelled({seed})
"""
NAMES = {  # by run: the figure, and what each of its networks is called
    "graph": ("accuracy, %", ("teacher", "distilled", "labels alone")),
    "policy": ("pushes a game", ("teacher", "distilled", "distilled, tau 1", "cloned")),
}


def graph(seed: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Accuracy of the three on the same test papers, in the runtime."""
    import graph as papers

    (folder / "others.py").write_text(UNLABELLED.format(examples=str(EXAMPLES), seed=seed), encoding="utf-8")
    settings = {**TIMED, "training_precision": options.precision, **(SHORT if options.quick else {})}

    def run(recipe: str, name: str, **changes: Any) -> Result:
        how: dict[str, Any] = {"settings": settings, "out": folder / name, "target": options.target, **changes}
        return compress(EXAMPLES / recipe, seed=seed, quiet=True, **how)

    taught = run("graph_1_teacher.yaml", "teacher", data=papers.neighbourhoods(seed))
    others = {**settings, "distill.data": f"{folder / 'others.py'}:unlabelled"}
    done = run(
        "graph_2_student.yaml", "student", data=papers.papers(seed), teacher=str(folder / "teacher"), settings=others
    )
    return {
        "teacher": tested(taught, "baseline"),
        "distilled": tested(done, "distilled"),
        "labels alone": tested(done, "baseline"),
    }


def policy(seed: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """How long they play, on average."""
    import policy as game

    net = game.learn(seed=seed, steps=100 if options.quick else game.STEPS)
    recorded = game.recorded(net, seed=seed)
    settings = {**TIMED, "training_precision": options.precision, **(SHORT if options.quick else {})}

    softer = game.Teacher(tau=1.0)
    softer.load_state_dict(net.state_dict())

    def student(name: str, teacher: nn.Module, **changes: float) -> Path:
        losses = {f"distill.{loss}": weight for loss, weight in changes.items()}
        done = compress(
            EXAMPLES / "policy.yaml", model=teacher, data=recorded, settings={**settings, **losses}, out=folder / name,
            seed=seed, target=options.target, quiet=True,
        )  # fmt: skip
        return done.folder / next(variant.file for variant in done.report.variants if variant.name == "distilled")

    def lasted(player: Any) -> float:
        return float(game.play(player, games=GAMES, seed=GAMES_SEED)[0].mean())

    return {
        "teacher": lasted(game.by_network(net)),
        "distilled": lasted(game.by_file(student("distilled", net))),
        "distilled, tau 1": lasted(game.by_file(student("softer", softer))),
        "cloned": lasted(game.by_file(student("cloned", net, ce=1, kd=0))),
    }


RUNS: dict[str, Callable[[int, argparse.Namespace, Path], dict[str, float]]] = {"graph": graph, "policy": policy}


def tested(done: Result, name: str) -> float:
    """Accuracy of a variant on the test samples, in the runtime."""
    (variant,) = [variant for variant in done.report.variants if variant.name == name]
    assert variant.accuracy is not None, f"{name} was measured: {variant.warnings}"
    return variant.accuracy.value


def told(found: seeds.Results, name: str) -> str:
    """The table of one run."""
    figure, networks = NAMES[name]
    by_network = {network: found.values(name, network) for network in networks}
    rows = [
        [
            network,
            seeds.mean_sd(list(values.values()), digits=1),
            "" if network == "distilled" else seeds.difference(by_network["distilled"], values, digits=1),
            len(values),
        ]
        for network, values in by_network.items()
    ]
    return seeds.table([name, figure, "distilled less this (95 %)", "seeds"], rows)


def main() -> None:
    parser = seeds.parser(__doc__)
    parser.add_argument("--target", default="onnxruntime-cpu", help="a profile (default: onnxruntime-cpu)")
    options = parser.parse_args()
    names = seeds.wanted(options, list(RUNS))
    sys.path.insert(0, str(EXAMPLES))
    decides = {"quick": options.quick, "target": options.target, "precision": options.precision}
    found = seeds.Results(file=options.json, settings=decides)
    with contextlib.ExitStack() as stack:
        root = options.keep or (options.json.with_suffix("") if options.json else None)
        root = root or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recipes-")))
        for seed in seeds.seeds_of(options):
            for name in names:
                folder = root / f"{name}-{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                found.run(name, seed, lambda name=name, seed=seed, folder=folder: RUNS[name](seed, options, folder))
    print("\n\n".join([machine(), *(told(found, name) for name in names)]))


if __name__ == "__main__":
    main()
