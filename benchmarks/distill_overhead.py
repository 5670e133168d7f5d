"""What a distillation step costs: over a plain loop, with the teacher's answers kept, and in torchdistill.

python benchmarks/distill_overhead.py [--steps N] [--rounds N] [--torchdistill PYTHON] [--json FILE] [--quick]

ResNet-56 teaches ResNet-20 on pictures of CIFAR's size, in float32. The plain loop and ours do the same arithmetic on
the same batches; ours also checks for losses that are not finite, notes every term, reports progress, and once in an
epoch finds each loss's share of the gradient, a pass back for each, and writes a checkpoint. With answers kept the
teacher is not run at all: the first epoch, which computes them, is not timed.
--torchdistill names a Python that has that package (https://github.com/yoshitomo-matsubara/torchdistill); it trains the
same pair with the same loss, optimiser and clipping, in its own loader and torch's usual memory layout. All take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from distill_nets import resnet20, resnet56
from pairs import in_turn, machine, spread
from torch import nn

from edgepress.stages.artifact import Context
from edgepress.stages.contract import Preprocessing
from edgepress.stages.data import Data, loader
from edgepress.stages.distill.response import divergence
from edgepress.stages.lesson import Lesson
from edgepress.stages.optimizing import optimizer_for, warm_cosine
from edgepress.stages.splits import in_memory
from edgepress.stages.teaching import teach
from edgepress.targets import profiles

BATCH = 128  # images of a step; 390 steps are then an epoch of CIFAR's 50 000
WORKER = Path(__file__).with_name("distill_torchdistill.py")
LESSON = Lesson(epochs=1, batch_size=BATCH, lr=0.05, optimizer="sgd", weight_decay=5e-4, ce=0.1, kd=0.9)
GOALS = {"edgepress / plain loop": "at most 1.03", "teacher computed / kept": "at least 1.6"}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="two steps, to see that it works")
    made.add_argument("--steps", type=int, default=60, help="of one training (default: 60): more of them, and less of "
                      "the time is what is done once in an epoch")  # fmt: skip
    made.add_argument("--batch", type=int, default=BATCH, help=f"images of a step (default: {BATCH})")
    made.add_argument("--rounds", type=int, default=5, help="of every thing in turn (default: 5)")
    made.add_argument("--torchdistill", metavar="PYTHON", help="a Python with torchdistill (else it is left out)")
    made.add_argument("--json", type=Path, metavar="FILE")
    options = made.parse_args()
    steps, rounds, where = (2, 1, machine()) if options.quick else (options.steps, options.rounds, machine())
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        lesson = replace(LESSON, batch_size=options.batch)
        things = ours(pictures(lesson.batch_size * steps), lesson, Path(folder))
        if options.torchdistill:
            things["torchdistill"] = stack.enter_context(
                torchdistill(options.torchdistill, steps=steps, batch=lesson.batch_size)
            )
        seconds = in_turn(things, rounds=rounds)
    report(seconds, steps=steps, batch=options.batch, where=where, note=not options.torchdistill)
    if options.json:
        text = json.dumps({"steps": steps, "batch": options.batch, "machine": where, "seconds": seconds}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


def ours(data: Data, lesson: Lesson, folder: Path) -> dict[str, Callable[[], object]]:
    """The plain loop, our training, and our training with the teacher's answers kept."""
    torch.manual_seed(0)
    big, small = resnet56().eval(), resnet20()

    def train(cache: Path | None) -> None:
        with tempfile.TemporaryDirectory() as work:
            context = Context(data=data, profile=profiles.load("openvino-cpu"), work=Path(work), seed=0, build={},
                              cache=cache)  # fmt: skip
            teach(copy.deepcopy(small), lesson, context, teacher=big, evaluate=lambda: 0.0)

    return {
        "plain loop": lambda: plain(copy.deepcopy(small), big, data, lesson),
        "edgepress": lambda: train(None),
        "edgepress, answers kept": lambda: train(folder),
    }


def plain(network: nn.Module, big: nn.Module, data: Data, lesson: Lesson) -> None:
    """The loop that a careful person would write."""
    assert data.train is not None
    steps = math.ceil(len(data.train) / lesson.batch_size)
    optimizer = optimizer_for(lesson, list(network.parameters()))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps))
    teacher = copy.deepcopy(big).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for images, labels, _ in loader(data.train, batch_size=lesson.batch_size, shuffle=True, seed=0, epoch=0):
        x = data.preprocessing.normalize(images).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = teacher(x)
        answers = network(x)
        imitation = divergence(answers, wanted, temperature=lesson.temperature)
        loss = lesson.ce * nn.functional.cross_entropy(answers, labels) + lesson.kd * imitation
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()


def pictures(count: int) -> Data:
    """Random ones: their content does not change what an epoch costs."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = in_memory(images, torch.randint(10, (count,), generator=generator))
    pixels = Preprocessing(size=(32, 32), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    return Data(
        train=split, val=split, test=split, classes=tuple("0123456789"), preprocessing=pixels,
        fingerprint="pictures", notes=(),
    )  # fmt: skip


@contextlib.contextmanager
def torchdistill(python: str, *, steps: int, batch: int) -> Iterator[Callable[[], None]]:
    """A call that lets it train one epoch in its own process."""
    command = [python, str(WORKER), str(batch * steps), str(batch)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None

        def wait_for(word: str) -> None:
            assert worker.stdout is not None
            if word not in worker.stdout.readline():
                raise SystemExit(f"{python} cannot run {WORKER.name}: what it says is above")

        def epoch() -> None:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            wait_for("done")

        wait_for("ready")
        yield epoch
        worker.stdin.close()


def report(seconds: dict[str, list[float]], *, steps: int, batch: int, where: str, note: bool) -> None:
    """Times of a step, and the ratios of each round."""
    rounds = len(seconds["edgepress"])
    print(f"{steps} steps of {batch} images, ResNet-56 teaches ResNet-20, {rounds} rounds in turn, {where}\n")
    print("| | ms for one step, median (range) |\n|---|---:|")
    for name, values in seconds.items():
        each = [1000 * value / steps for value in values]
        print(f"| {name} | {statistics.median(each):.0f} ({min(each):.0f} to {max(each):.0f}) |")
    ratios = {
        "edgepress / plain loop": ("edgepress", "plain loop"),
        "teacher computed / kept": ("edgepress", "edgepress, answers kept"),
        "torchdistill / edgepress": ("torchdistill", "edgepress"),
    }
    print("\n| ratio of each round | median (range) | goal |\n|---|---:|---|")
    for name, (above, below) in ratios.items():
        if above in seconds:
            each = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
            print(f"| {name} | {spread(each)} | {GOALS.get(name, '')} |")
    if note:
        print("\ntorchdistill was not measured: give --torchdistill PYTHON, one that has it.")


if __name__ == "__main__":
    main()
