"""Make images without a generator: pixels are changed until a teacher's batch norms cannot tell them from data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...targets.errors import StageError
from ..distill.nouns import Batch
from ..distill.samples import CHANNELS_LAST, PROBE
from ..progress import Progress, Quiet
from .order import Order, mixed
from .priors import TEACHER, cost_of, remember, wire_priors
from .through import Through, held

BETAS = (0.5, 0.999)  # of Adam, as in DeepInversion
BETWEEN_WORDS = 10  # steps


class ByPixels:
    """The pixels themselves are changed until teacher, and student, see in them what the priors want.

    ZeroQ, Cai et al., 2020 (arXiv:2001.00281), and DeepInversion, Yin et al., 2020 (arXiv:1912.08795), which also moves
    the images about and seeks what a student gets wrong. Statistics are those of a whole batch: matched one by one,
    images would all be alike. Adam, whose rate falls as a cosine, in standard deviations of the data; after each step
    pixels are brought back to what an image can hold. A batch is the best of its steps. Both networks stay as they are.
    """

    def __init__(
        self, order: Order, *, teacher: nn.Module, student: nn.Module | None = None, progress: Progress | None = None
    ) -> None:
        """StageError: a prior needs what this teacher does not have, such as batch norms."""
        self.order, self.made = order, 0
        self._teacher, self._student = teacher, student
        self._networks = [teacher] if student is None else [teacher, student]
        self._progress = progress or Quiet()
        with held(*self._networks):
            self._through = Through(teacher)
            self.objective = wire_priors(
                order.losses(teacher, is_alone=student is None),
                learner=teacher if student is None else student,
                teachers={TEACHER: self._through},
                probe=Batch(x=self.noise(PROBE, torch.Generator().manual_seed(order.seed)), y=self._wanted(PROBE)),
                seed=order.seed,
            )

    def make(self, *, epoch: float = 0.0) -> Tensor:
        """The next batch. StageError: a loss is not finite."""
        dice = torch.Generator().manual_seed(mixed(self.order.seed, self.made))
        with held(*self._networks):
            best = self._searched(self.noise(self.order.batch, dice), dice, epoch)
        remember(self.objective)
        self.made += 1
        return self.order.preprocessing.pixels(best).contiguous().cpu()

    def noise(self, count: int, dice: torch.Generator) -> Tensor:
        """Where images begin: normal, as normalised data are, within what an image can hold."""
        noise = torch.randn((count, *self.order.shape), generator=dice).to(self.order.device)
        return noise.clamp(*self._limits()).contiguous(memory_format=CHANNELS_LAST)

    def cost(self, x: Tensor, *, epoch: float = 0.0) -> Tensor:
        """The priors' weighted sum for these images, which are normalised, with the gradient of their pixels."""
        batch = Batch(x=x, y=self._wanted(len(x)))
        return cost_of(
            self.objective, batch, teacher=self._through, student=self._student, network=self._teacher, epoch=epoch
        )

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made, "objective": self.objective.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.made = int(state["made"])
        self.objective.load_state_dict(state["objective"])

    def _searched(self, x: Tensor, dice: torch.Generator, epoch: float) -> Tensor:
        steps, lr, limits = self.order.steps, self.order.method.lr, self._limits()
        x.requires_grad_()
        optimizer = torch.optim.Adam([x, *self.objective.learned()], lr=lr, betas=BETAS)
        least, best = math.inf, x.detach().clone()
        for place in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * place / steps)) / 2
            total = self.cost(self._moved(x, dice), epoch=epoch)
            value = _finite(float(total.detach()), place)
            if value < least:
                least, best = value, x.detach().clone()
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                x.copy_(x.clamp(*limits))
            if place % BETWEEN_WORDS == 0:
                self._progress.update(place / steps, f"loss {value:.3g}")
        return best

    def _moved(self, x: Tensor, dice: torch.Generator) -> Tensor:
        """The whole batch rolled by a few pixels, by lot in each step, where the method wants that."""
        most = self.order.method.jitter
        if not most:
            return x
        down, right = torch.randint(-most, most + 1, (2,), generator=dice).tolist()
        return x.roll((down, right), dims=(2, 3))

    def _limits(self) -> tuple[Tensor, Tensor]:
        """Black and white, normalised, for each channel."""
        black = torch.zeros(1, self.order.shape[0], 1, 1, device=self.order.device)
        return self.order.preprocessing.normalize(black), self.order.preprocessing.normalize(black + 1)

    def _wanted(self, count: int) -> Tensor | None:
        """As many images of each class as of any other, where the method wants images of a class."""
        if not self.order.method.wants:
            return None
        return torch.arange(count, device=self.order.device) % self.order.classes


def _finite(value: float, place: int) -> float:
    if not math.isfinite(value):
        raise StageError(
            f"the loss of the images is {value} at step {place + 1}: look whether data.mean and data.std are the "
            "teacher's, or take another data.synthesis.method"
        )
    return value
