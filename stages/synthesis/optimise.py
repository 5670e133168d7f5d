"""Make images without a generator: pixels are changed until a teacher's batch norms cannot tell them from data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...targets.errors import StageError
from ..contract import Preprocessing
from ..distill.nouns import Batch, Objective, Step, Teacher
from ..distill.settings import Loss
from ..distill.watching import answer
from ..progress import Progress, Quiet
from .generators import Shape
from .priors import remember, wire_priors
from .through import Through, held

ZEROQ: Mapping[str, Loss] = {"bnstats": Loss(options={"kind": "std", "inputs": True})}
NAME = "teacher"  # of the one teacher
PROBE = 4  # images to see shapes by
BETAS = (0.5, 0.999)  # of Adam, as in DeepInversion
BETWEEN_WORDS = 10  # steps


class Keeps(Protocol):
    """Where made images go: a pool."""

    def add(self, images: Tensor, labels: Tensor, *, note: Mapping[str, Any]) -> object:
        """images: pixels from 0 to 1, (n, channels, height, width). labels: what the teacher takes them for."""


@dataclass(frozen=True, kw_only=True)
class Optimised:
    """The priors' weighted sum over each batch, of the noise that it began as and of the images that it became."""

    before: tuple[float, ...]
    after: tuple[float, ...]


def optimise_images(
    teacher: nn.Module,
    *,
    shape: Shape,
    preprocessing: Preprocessing,
    count: int,
    batch: int = 64,
    steps: int = 500,
    lr: float = 0.5,
    priors: Mapping[str, Loss] = ZEROQ,
    seed: int,
    into: Keeps,
    progress: Progress | None = None,
    student: nn.Module | None = None,
    jitter: int = 0,
    done: int = 0,
) -> Optimised:
    """Make `count` images, batch by batch, and hand each batch to `into`; the networks stay as they are.

    ZeroQ, Cai et al., 2020 (arXiv:2001.00281): priors as given by default, 500 steps of lr 0.5. DeepInversion, Yin et
    al., 2020 (arXiv:1912.08795): {onehot 1, bnstats 10, tv 4e-4}, 2000 steps of lr 0.1, jitter 2, and the disagreement
    `js` with a student. Adam, whose rate falls as a cosine; lr in standard deviations of the data. After each step
    pixels are brought back to what an image can hold. Each batch ends as the best of its steps.

    batch: images whose statistics are matched together: one by one they would all be alike. jitter: pixels that a batch
    is rolled by at most, by lot in each step. Ramps of priors go from 0, a batch's first step, to 1, its last.
    done: images that are there from an earlier call with these settings; it goes on behind them.

    StageError: a prior needs what this teacher does not have, such as batch norms; or a loss is not finite.
    """
    progress, size = progress or Quiet(), min(batch, count)
    numbers = range(done // size, math.ceil(count / size))
    before, after = [], []
    with held(*([teacher] if student is None else [teacher, student])):
        work = _prepared(
            _Work(
                through=Through(teacher), learner=teacher if student is None else student, preprocessing=preprocessing,
                shape=shape, steps=steps, lr=lr, jitter=jitter, device=_device_of(teacher),
            ),
            priors, seed=seed,
        )  # fmt: skip
        for place, number in enumerate(numbers):
            words = f"images {number * size + 1} to {min(count, (number + 1) * size)} of {count}"
            tell = _Telling(progress=progress, words=words, begin=place / len(numbers), share=1 / len(numbers))
            made = _optimised(work, size, seed=seed * 1_000_003 + number, tell=tell)
            wanted = slice(count - number * size)  # the last batch is made whole as well, for its statistics
            note = {"number": number, "before": made.before, "after": made.after}
            into.add(made.pixels[wanted], made.labels[wanted], note=note)
            remember(work.objective())
            before.append(made.before)
            after.append(made.after)
    return Optimised(before=tuple(before), after=tuple(after))


@dataclass(frozen=True, kw_only=True)
class _Telling:
    """Says how far one batch among several is."""

    progress: Progress
    words: str
    begin: float
    share: float

    def __call__(self, gone: float, loss: float) -> None:
        self.progress.update(self.begin + gone * self.share, f"{self.words}  loss {loss:.3g}")


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What all batches share. learner: the student, or the teacher again where there is none. classes: that
    the teacher tells apart. found: the priors, wired."""

    through: Through
    learner: nn.Module
    preprocessing: Preprocessing
    shape: Shape
    steps: int
    lr: float
    jitter: int
    device: torch.device
    classes: int | None = None
    found: Objective | None = None

    def objective(self) -> Objective:
        assert self.found is not None, "priors are wired before images are made"
        return self.found

    def look(self, x: Tensor, y: Tensor | None, gone: float) -> Step:
        """One pass of the teacher, and of the student where there is one."""
        batch = Batch(x=x, y=y)
        said = self.through.see(batch)
        teacher = self.through.module
        assert teacher is not None, "Through has a network"
        alone = self.learner is teacher
        student = said if alone else answer(self.learner, x, self.objective().taps())
        return Step(
            batch=batch, student=student, teachers={NAME: said}, progress=gone, epoch=gone, learner=self.learner,
            models={NAME: teacher},
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Made:
    pixels: Tensor
    labels: Tensor
    before: float
    after: float


def _prepared(work: _Work, priors: Mapping[str, Loss], *, seed: int) -> _Work:
    """The same with the priors wired, and the number of classes."""
    x = _noise(work, PROBE, torch.Generator().manual_seed(seed))
    told = work.through.see(Batch(x=x)).logits
    classes = told.shape[1] if told.ndim == 2 and told.shape[1] > 1 else None
    probe = Batch(x=x, y=_wanted(classes, PROBE, work.device))
    teachers: dict[str, Teacher] = {NAME: work.through}
    found = wire_priors(priors, learner=work.learner, teachers=teachers, probe=probe, seed=seed)
    return replace(work, classes=classes, found=found)


def _optimised(work: _Work, count: int, *, seed: int, tell: _Telling) -> _Made:
    generator = torch.Generator().manual_seed(seed)
    x = _noise(work, count, generator).requires_grad_()
    y = _wanted(work.classes, count, work.device)
    objective, (low, high) = work.objective(), _limits(work)
    optimizer = torch.optim.Adam([x, *objective.learned()], lr=work.lr, betas=BETAS)
    first, lowest, best = math.nan, math.inf, x.detach().clone()
    for place in range(work.steps):
        gone = place / work.steps
        optimizer.param_groups[0]["lr"] = work.lr * (1 + math.cos(math.pi * gone)) / 2
        total, _ = objective(work.look(_rolled(x, work.jitter, generator), y, gone))
        value = _finite(float(total.detach()), place)
        first = value if place == 0 else first
        if value < lowest:
            lowest, best = value, x.detach().clone()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        with torch.no_grad():
            x.copy_(x.clamp(low, high))
        if place % BETWEEN_WORDS == 0:
            tell(gone, value)
    with torch.no_grad():
        step = work.look(best, y, 1.0)
        after = float(objective(step)[0])
    return _Made(
        pixels=work.preprocessing.pixels(best).contiguous().cpu(), labels=step.teacher().logits.argmax(dim=1).cpu(),
        before=first, after=after,
    )  # fmt: skip


def _noise(work: _Work, count: int, generator: torch.Generator) -> Tensor:
    """Where images begin: normal, as normalised data are, within what an image can hold."""
    noise = torch.randn((count, *work.shape), generator=generator).to(work.device)
    return noise.clamp(*_limits(work)).contiguous(memory_format=torch.channels_last)


def _limits(work: _Work) -> tuple[Tensor, Tensor]:
    """Black and white, normalised, for each channel."""
    black = torch.zeros(1, work.shape[0], 1, 1, device=work.device)
    return work.preprocessing.normalize(black), work.preprocessing.normalize(black + 1)


def _rolled(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    if not most:
        return x
    down, right = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    return x.roll((down, right), dims=(2, 3))


def _wanted(classes: int | None, count: int, device: torch.device) -> Tensor | None:
    """As many images of each class as of any other; None where there are no classes of whole images."""
    return None if classes is None else torch.arange(count, device=device) % classes


def _finite(value: float, place: int) -> float:
    if not math.isfinite(value):
        raise StageError(
            f"the loss of the images is {value} at step {place + 1}: give a smaller learning rate or smaller weights"
        )
    return value


def _device_of(module: nn.Module) -> torch.device:
    tensor = next(iter(module.parameters()), None)
    return torch.device("cpu") if tensor is None else tensor.device
