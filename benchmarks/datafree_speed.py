"""Where the time of a student without data goes, and what makes it faster: images per second beside a plain loop.

python benchmarks/datafree_speed.py [--pair lenet,resnet] [--rounds N] [--json FILE] [--quick]

DFAD (Fang et al., 2019, arXiv:1912.11006) on networks that were not trained, since speed does not depend on that. A
round is one step of the generator, through teacher and student, and ten of the student on the same images. The plain
loop and ours do the same arithmetic; ours also looks for losses that are not finite, notes each of them, draws
repeatable random numbers, and writes a checkpoint. Everything takes turns. Images per second: that the student learns
from, ten times a round. torch.compile is timed in the plain loop, after it has compiled: ours compiles anew for each
training, which is nothing to a real one and much to the few rounds here. The split measures each network's passes of
a round by themselves, so its parts need not add up to the whole.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datafree_nets import lenet5, lenet5_half
from distill_nets import resnet20, resnet56
from pairs import in_turn, machine, spread
from seeds import table
from torch import Tensor, nn

from edgepress.stages.artifact import Context
from edgepress.stages.contract import Preprocessing
from edgepress.stages.data import Data
from edgepress.stages.lesson import CLIP_NORM, Lesson
from edgepress.stages.splits import in_memory
from edgepress.stages.synthesis.methods import METHODS
from edgepress.stages.synthesis.order import Order
from edgepress.stages.synthesis.score import examine
from edgepress.stages.synthesis.settings import Synthesis
from edgepress.stages.synthesis.synthetic import Synthetic
from edgepress.stages.teaching import teach
from edgepress.targets import profiles

METHOD = METHODS["dfad"]
BATCH = 256
PAIRS: dict[str, tuple[int, int, Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "lenet": (1, 28, lenet5, lenet5_half),
    "resnet": (3, 32, lambda: resnet56(10), lambda: resnet20(10)),
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How it is computed. is_ours: by this project's loop; else by the plain one, which alone is compiled."""

    is_ours: bool = True
    batch: int = BATCH
    layout: Literal["channels-last", "channels-first"] = "channels-last"
    precision: Literal["fp32", "bf16"] = "fp32"
    is_compiled: bool = False

    @property
    def name(self) -> str:
        words = ["edgepress" if self.is_ours else "plain loop", f"batch {self.batch}", self.layout, self.precision]
        return ", ".join([*words, *(["compiled"] if self.is_compiled else [])])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A teacher, a student, and the shape of what they take. rounds: that are timed at a time."""

    name: str
    rounds: int
    folder: Path

    def networks(self) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        _, _, big, small = PAIRS[self.name]
        return big().eval(), small()

    @property
    def preprocessing(self) -> Preprocessing:
        channels, side, _, _ = PAIRS[self.name]
        return Preprocessing(size=(side, side), channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)

    def order(self, batch: int) -> Order:
        return Order(
            method=METHOD, settings=Synthesis(method="dfad", batch=batch, rounds=self.rounds), classes=10,
            preprocessing=self.preprocessing, seed=0, device=torch.device("cpu"),
        )  # fmt: skip

    def data(self, teacher: nn.Module, batch: int) -> Data:
        """As after the first images were made: a few, for what looks at validation images."""
        order = self.order(batch)
        pixels = torch.rand(16, *order.shape, generator=torch.Generator().manual_seed(0))
        split = in_memory(pixels, torch.arange(16) % 10)
        made = Synthetic(
            source="generated", method="dfad", reason="", teacher="", pool=self.folder, seconds=0.0,
            score=examine(pixels, teacher, self.preprocessing), settings=order.settings,
        )  # fmt: skip
        return Data(
            train=split, val=split, test=split, classes=tuple("0123456789"), preprocessing=self.preprocessing,
            fingerprint="", notes=(), synthetic=made,
        )  # fmt: skip

    def timed(self, way: Way) -> Callable[[], object]:
        """One call trains for so many rounds."""
        return self._ours(way) if way.is_ours else Plain(pair=self, way=way)

    def _ours(self, way: Way) -> Callable[[], object]:
        teacher, student = self.networks()
        data = self.data(teacher, way.batch)
        lesson = Lesson(epochs=1, lr=1e-3, weight_decay=0.0, ce=0.0, kd=1.0)

        def call() -> None:
            with tempfile.TemporaryDirectory() as folder:
                context = Context(
                    data=data, profile=profiles.load("openvino-cpu"), work=Path(folder), seed=0, build={},
                    training_precision=way.precision,
                )  # fmt: skip
                teach(copy.deepcopy(student), lesson, context, teacher=teacher, evaluate=lambda: 0.0)

        return call


class Plain:
    """The loop that a careful person would write."""

    def __init__(self, *, pair: Pair, way: Way) -> None:
        self.way, self.rounds, self.preprocessing = way, pair.rounds, pair.preprocessing
        order = pair.order(way.batch)
        teacher, student = pair.networks()
        layout = torch.channels_last if way.layout == "channels-last" else torch.contiguous_format
        self.layout, self.latent = layout, order.latent
        self.teacher, self.student, self.generator = (
            part.to(memory_format=layout) for part in (teacher.requires_grad_(False), student, order.generator(teacher))
        )  # type: ignore[call-overload]
        self.shown: nn.Module = self.student
        if way.is_compiled:
            self.shown = torch.compile(self.student)  # type: ignore[assignment]
        self.fast = torch.optim.AdamW(self.student.parameters(), 1e-3, weight_decay=0.0)
        self.slow = torch.optim.Adam(self.generator.parameters(), METHOD.lr)

    def __call__(self) -> None:
        for _ in range(self.rounds):
            x = self.made()
            self.generators_turn(x)
            self.students_turns(x.detach())

    def made(self) -> Tensor:
        self.generator.train()
        with self.lower():
            return self.input(self.generator(torch.randn(self.way.batch, self.latent), None).float())

    def input(self, pixels: Tensor) -> Tensor:
        return self.preprocessing.normalize(pixels).contiguous(memory_format=self.layout)

    def generators_turn(self, x: Tensor) -> None:
        self.student.eval().requires_grad_(False)
        with self.lower():
            wanted, answer = self.teacher(x), self.student(x)
        self.slow.zero_grad(set_to_none=True)
        (-(answer.float() - wanted.float()).abs().mean()).backward()
        nn.utils.clip_grad_norm_(self.generator.parameters(), CLIP_NORM)
        self.slow.step()
        self.student.requires_grad_(True)

    def students_turns(self, x: Tensor) -> None:
        self.student.train()
        with torch.no_grad(), self.lower():
            wanted = self.teacher(x).float()
        for _ in range(METHOD.learns):
            with self.lower():
                answer = self.shown(x)
            self.fast.zero_grad(set_to_none=True)
            (answer.float() - wanted).abs().mean().backward()
            nn.utils.clip_grad_norm_(self.student.parameters(), CLIP_NORM)
            self.fast.step()

    def lower(self) -> contextlib.AbstractContextManager[object]:
        if self.way.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", dtype=torch.bfloat16)


def parts(pair: Pair) -> Mapping[str, Callable[[], object]]:
    """The passes of a round by whose they are, each by itself."""
    loop = Plain(pair=pair, way=Way(is_ours=False))
    fixed = loop.made().detach()

    def through(network: nn.Module) -> None:
        network(fixed.clone().requires_grad_()).sum().backward()

    def generator() -> None:
        loop.made().sum().backward()
        loop.slow.step()

    def teacher() -> None:
        through(loop.teacher)
        with torch.no_grad():
            loop.teacher(fixed)

    def student() -> None:
        loop.student.eval().requires_grad_(False)
        through(loop.student)
        loop.student.train().requires_grad_(True)
        for _ in range(METHOD.learns):
            loop.fast.zero_grad(set_to_none=True)
            loop.student(fixed).sum().backward()
            loop.fast.step()

    def repeated(one: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(pair.rounds):
                one()

        return call

    return {one.__name__: repeated(one) for one in (generator, teacher, student)}


def ways(*, quick: bool) -> list[Way]:
    """The plain loop and ours as they are, and then one thing changed at a time."""
    usual = [Way(is_ours=False), Way()]
    if quick:
        return [*usual, Way(batch=BATCH // 2), Way(precision="bf16"), Way(is_ours=False, layout="channels-first")]
    batches = [Way(batch=batch) for batch in (64, 128, 512)]
    others = [Way(precision="bf16"), *(Way(is_ours=False, precision=one, is_compiled=True) for one in ("fp32", "bf16"))]
    return [*usual, Way(is_ours=False, layout="channels-first"), *batches, *others]


def rate(way: Way, seconds: Sequence[float], rounds: int) -> list[float]:
    """Images per second of each call."""
    return [rounds * METHOD.learns * way.batch / one for one in seconds]


def main() -> None:
    options = arguments()
    found: dict[str, Any] = {"machine": machine()}
    rounds, turns = (1, 1) if options.quick else (options.rounds, options.turns)
    print(f"{found['machine']}; {turns} turns of {rounds} rounds, medians (range)\n")
    for name in options.pair:
        with tempfile.TemporaryDirectory() as folder:
            pair = Pair(name=name, rounds=rounds, folder=Path(folder))
            split = in_turn(parts(pair), rounds=turns)
            there = {way.name: way for way in ways(quick=options.quick)}
            seconds = in_turn({key: pair.timed(way) for key, way in there.items()}, rounds=turns)
        found[name] = {"split": split, "ways": seconds}
        print(f"## {name}\n\n{of_split(split, rounds)}\n\n{of_ways(there, seconds, rounds)}\n")
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def of_split(split: Mapping[str, Sequence[float]], rounds: int) -> str:
    whole = sum(map(statistics.median, split.values()))
    rows = [
        [name, spread([1000 * one / rounds for one in seconds]), f"{100 * statistics.median(seconds) / whole:.0f}"]
        for name, seconds in split.items()
    ]
    return table(["passes of", "ms a round", "share of all, %"], rows)


def of_ways(there: Mapping[str, Way], seconds: Mapping[str, Sequence[float]], rounds: int) -> str:
    """Each way beside the plain loop of the same turn."""
    plain = rate(Way(is_ours=False), seconds[Way(is_ours=False).name], rounds)
    rows = []
    for name, way in there.items():
        rates = rate(way, seconds[name], rounds)
        ratios = [mine / theirs for mine, theirs in zip(rates, plain, strict=True)]
        rows.append([name, spread(rates), spread(ratios)])
    return table(["", "images a second", "over the plain loop"], rows)


def arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="one round each, to see that it works")
    made.add_argument("--pair", type=lambda text: tuple(text.split(",")), default=tuple(PAIRS), metavar="NAME,...",
                      help=f"networks: {', '.join(PAIRS)} (default: both)")  # fmt: skip
    made.add_argument("--rounds", type=int, default=20, help="of one call (default: 20)")
    made.add_argument("--turns", type=int, default=5, help="of every way in turn (default: 5)")
    made.add_argument("--json", type=Path, metavar="FILE")
    options = made.parse_args()
    unknown = [name for name in options.pair if name not in PAIRS]
    if unknown:
        made.error(f"--pair: there is no {', '.join(unknown)}; there are {', '.join(PAIRS)}")
    return options


if __name__ == "__main__":
    main()
