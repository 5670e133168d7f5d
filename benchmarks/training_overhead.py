"""What the training core costs over a plain PyTorch loop that does the same arithmetic.

Both train the same student on the same batches with the same teacher, loss, optimiser, schedule, clipping and
normalisation, in turn. Ours also watches for losses that are not finite, notes every term, reports progress and writes
a checkpoint; that is what is measured.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).parent.parent / "examples"))
from mnist_nets import student, teacher
from pairs import in_turn, machine, spread

from edgepress.stages.artifact import Context
from edgepress.stages.contract import Preprocessing
from edgepress.stages.data import Data, loader
from edgepress.stages.distill.response import divergence
from edgepress.stages.lesson import CLIP_NORM, Lesson
from edgepress.stages.optimizing import optimizer_for, warm_cosine
from edgepress.stages.splits import in_memory
from edgepress.stages.teaching import teach
from edgepress.targets import profiles


def pictures(count: int) -> Data:
    """Random digits: their content does not change what an epoch costs."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    split = in_memory(images, torch.randint(10, (count,), generator=generator))
    pixels = Preprocessing(size=(28, 28), channels=1, mean=(0.13,), std=(0.31,))
    return Data(
        train=split, val=split, test=split, classes=tuple("0123456789"), preprocessing=pixels, fingerprint="", notes=()
    )


def plain(network: nn.Module, big: nn.Module, data: Data, lesson: Lesson) -> None:
    """The loop that a careful person would write."""
    assert data.train is not None
    rounds = math.ceil(len(data.train) / lesson.batch_size)
    optimizer = optimizer_for(lesson, list(network.parameters()))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(lesson.epochs * rounds))
    big.eval().to(memory_format=torch.channels_last)
    network.train().to(memory_format=torch.channels_last)
    for epoch in range(lesson.epochs):
        for images, labels, _ in loader(data.train, batch_size=lesson.batch_size, shuffle=True, seed=0, epoch=epoch):
            x = data.preprocessing.normalize(images).contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                wanted = big(x)
            answers = network(x)
            imitation = divergence(answers, wanted, temperature=lesson.temperature)
            loss = lesson.ce * nn.functional.cross_entropy(answers, labels) + lesson.kd * imitation
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    batches, rounds = (4, 2) if options.quick else (60, 5)
    data = pictures(128 * batches)
    lesson = Lesson(
        epochs=2, batch_size=128, lr=1e-3, optimizer="adamw", weight_decay=5e-4, ce=0.1, kd=0.9, temperature=4.0
    )
    torch.manual_seed(0)
    big, small = teacher(), student()

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            context = Context(data=data, profile=profiles.load("openvino-cpu"), work=Path(folder), seed=0, build={})
            teach(copy.deepcopy(small), lesson, context, teacher=big, evaluate=lambda: 0.0)

    where = machine()
    seconds = in_turn({"plain": lambda: plain(copy.deepcopy(small), big, data, lesson), "ours": ours}, rounds=rounds)
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["plain"], strict=True)]
    print(f"{2 * batches} distillation steps of 128 images, {rounds} pairs, {where}\n")
    print("| | seconds, median (range) |\n|---|---|")
    print(f"| plain loop | {spread(seconds['plain'])} |\n| edgepress | {spread(seconds['ours'])} |")
    print(f"| ratio of each pair | {spread(ratios)} |")


if __name__ == "__main__":
    main()
