"""One training of a benchmark: this project's own `teach`, its data and settings, nothing private."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from edgepress.stages.artifact import Context
from edgepress.stages.data import Data, open_data
from edgepress.stages.evaluation import accuracy, logits
from edgepress.stages.lesson import Lesson
from edgepress.stages.settings import DataSettings
from edgepress.stages.splits import Split
from edgepress.stages.teaching import teach
from edgepress.stages.tensors import load_state, save_state
from edgepress.targets import profiles


class Loud:
    """Says on stderr how far a training is, on one line that overwrites itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.on = sys.stderr.isatty()

    def update(self, share: float, text: str) -> None:
        if self.on:
            print(f"\r{self.name}  {100 * share:3.0f} %  {text}"[:119], end="\033[K", file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where runs take place. folder: of checkpoints and trained teachers."""

    data: Data
    folder: Path
    precision: Literal["fp32", "bf16"] = "fp32"

    def place_of(self, name: str, lesson: Lesson, seed: int) -> Path:
        """A folder for this run alone: whatever decides its course is in its name."""
        facts = repr((lesson, self.data.fingerprint, self.data.augment, self.precision))
        return self.folder / f"{name}-{seed}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"

    def train(
        self, name: str, build: Callable[[], nn.Module], lesson: Lesson, *, seed: int, teacher: Any = None,
        last: bool = False, **options: Any,
    ) -> nn.Module:  # fmt: skip
        """A trained network in eval mode. A run that was killed goes on from its last epoch.

        build: makes it, after the seed is set. last: keep the last epoch instead of the one that validates best:
        for trainings on every image that may be learned from. options: of `teach`.
        """
        torch.manual_seed(seed)
        net = build()
        context = self.context(name, seed=seed, folder=self.place_of(name, lesson, seed))
        if last:
            options["evaluate"] = lambda: 0.0  # of equals the later wins
        teach(net, lesson, context, teacher=teacher, **options)
        shutil.rmtree(context.work, ignore_errors=True)
        return net.eval()

    def context(self, name: str, *, seed: int, folder: Path) -> Context:
        """What surrounds a training. folder: of its checkpoints."""
        return Context(
            data=self.data, profile=profiles.load("onnxruntime-cpu"), work=folder, seed=seed, build={},
            cache=self.folder / "answers", training_precision=self.precision, progress=Loud(f"{name}, seed {seed}"),
        )  # fmt: skip

    def kept(self, name: str, build: Callable[[], nn.Module], lesson: Lesson, *, seed: int, **how: Any) -> nn.Module:
        """The same for a network that is needed again, such as a teacher: trained once, then read."""
        file = self.place_of(name, lesson, seed).with_suffix(".safetensors")
        if file.is_file():
            net = build()
            net.load_state_dict(load_state(file))
            return net.eval()
        net = self.train(name, build, lesson, seed=seed, **how)
        save_state(dict(net.state_dict()), file)
        return net

    def with_data(self, **changes: Any) -> Room:
        """The same with other images to learn from, or other variations of them."""
        data = replace(self.data, **changes)
        if data.train is not None and data.train is not self.data.train:
            rows = hashlib.sha256(data.train.rows.numpy().tobytes()).hexdigest()[:16]
            data = replace(data, fingerprint=f"{data.fingerprint}-{rows}")  # kept answers belong to these alone
        return replace(self, data=data)


@contextlib.contextmanager
def room(options: argparse.Namespace, **settings: Any) -> Iterator[Room]:
    """Open the data and the folder that the command line names. settings: of the data, beside its source."""
    with contextlib.ExitStack() as stack:
        folder = options.keep or (options.json.with_suffix("") if options.json else None)
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distill-")))
        data = open_data(
            DataSettings(source=options.data, **settings), seed=0, cache=folder / "images", given_weights=False
        )
        yield Room(data=data, folder=folder, precision=options.precision)


def errors(net: nn.Module, data: Data) -> int:
    """How many test images are answered wrongly."""
    answers, labels = logits(net, data.test, data.preprocessing)
    return int((answers.argmax(dim=1) != labels).sum())


def tested(net: nn.Module, data: Data) -> float:
    """Per cent of the test images; they have chosen nothing."""
    return accuracy(net, data.test, data.preprocessing)


def joined(first: Split, second: Split) -> Split:
    """Two parts of one source as one."""
    assert first.pixels is second.pixels, "parts of one source"
    return Split(first.pixels, torch.cat([first.labels(), second.labels()]), torch.cat([first.rows, second.rows]))
