"""Make batches of images with a generator: some of its steps before a teacher, and the student as it is, for each."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ..distill.nouns import Batch
from ..distill.samples import PROBE
from ..distill.watching import still
from .order import Drawn, Order, mixed
from .priors import TEACHER, cost_of, remember, wire_priors
from .through import Through, held

CROP = (0.5, 1.0)  # of a side that a second view shows: a quarter to the whole of the image (CMI)


class ByGenerator:
    """Some steps of a generator for each batch.

    It plays in train mode, so that its batch norms see what it makes; teacher and student are frozen and in eval mode,
    and let gradients through.
    """

    def __init__(self, order: Order, *, teacher: nn.Module, student: nn.Module | None) -> None:
        self.order, self.made = order, 0
        self._student, self._network, self._teacher = student, teacher, Through(teacher)
        self._networks = [teacher] if student is None else [teacher, student]
        self.begin_anew()
        self.objective = wire_priors(
            order.losses(teacher, is_alone=student is None),
            learner=teacher if student is None else student,
            teachers={TEACHER: self._teacher},
            probe=self._probe(),
            seed=order.seed,
        )
        learned, method = self.objective.learned(), order.method
        self._head = torch.optim.Adam(learned, lr=method.lr, betas=method.betas) if learned else None

    def make(self, *, epoch: float = 0.0) -> Tensor:
        method, seed = self.order.method, mixed(self.order.seed, self.made)
        dice = torch.Generator().manual_seed(seed)
        if method.restart is not None and self.made and self.made % method.restart == 0:
            self.begin_anew()
        if self.made == method.refresh:
            self._module.reset_first(dice)
        if method.renews:
            self._module.renew(dice)
        with torch.random.fork_rng(), held(*self._networks):
            torch.manual_seed(seed)
            images = self._followed(dice, epoch) if method.play == "turns" else self._searched(dice, epoch)
        self.made += 1
        return images

    def begin_anew(self) -> None:
        """A new generator. One that is only a good start for others learns as fast as they do in all their steps."""
        method = self.order.method
        self._module = self.order.generator(self._network, number=self.made)
        lr = method.lr * (self.order.steps if method.meta else 1)
        self._optimizer = torch.optim.Adam(self._module.parameters(), lr=lr, betas=method.betas)

    def state_dict(self) -> dict[str, Any]:
        return {
            "made": self.made,
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "head": {} if self._head is None else self._head.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.made = int(state["made"])
        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        if self._head is not None:
            self._head.load_state_dict(state["head"])

    def start_from(self, state: Mapping[str, Any] | None) -> None:
        """Take the generator of another maker, where it is of the same shape, and count on from there."""
        mine = {name: value.shape for name, value in self._module.state_dict().items()}
        if state is not None and {name: value.shape for name, value in state["module"].items()} == mine:
            self._module.load_state_dict(state["module"])
            self.made = int(state["made"])

    def _followed(self, dice: torch.Generator, epoch: float) -> Tensor:
        """The generator learns on, each step from other numbers; images that it makes then."""
        self._module.train()
        for turn in range(self.order.steps):
            drawn = self.order.drawn(dice)
            self._step(self._optimizer, self._judged(drawn.by(self._module), drawn, turn=turn, epoch=epoch))
        remember(self.objective)
        with torch.no_grad():
            return self.order.drawn(dice).by(self._module)

    def _searched(self, dice: torch.Generator, epoch: float) -> Tensor:
        """The best of the batches that are seen while generator and random numbers are changed for this one."""
        method, drawn = self.order.method, self.order.drawn(dice)
        playing = (copy.deepcopy(self._module) if method.meta else self._module).train()
        groups: list[dict[str, Any]] = [{"params": list(playing.parameters())}]
        if method.latent_lr is not None and drawn.z is not None:
            groups.append({"params": [drawn.z.requires_grad_()], "lr": method.latent_lr})
        optimizer = torch.optim.Adam(groups, lr=method.lr, betas=method.betas)
        self._optimizer.zero_grad()
        least, best = math.inf, torch.empty(0)
        for turn in range(self.order.steps):
            images = drawn.by(playing)
            total = self._judged(images, drawn, turn=turn, epoch=epoch)
            if float(total.detach()) < least:
                least, best = float(total.detach()), images.detach()
            self._step(optimizer, total, start_of=playing if method.meta else None)
        if method.meta:
            self._optimizer.step()
        remember(self.objective)
        return best

    def _step(self, optimizer: torch.optim.Optimizer, total: Tensor, *, start_of: nn.Module | None = None) -> None:
        """One step. start_of: the copy whose gradients count for what it was copied from (first-order MAML)."""
        if not math.isfinite(float(total.detach())):
            raise StageError(
                f"{self.order.method.name}: what images are held to is not finite any more at batch {self.made + 1}. "
                "Look whether data.mean and data.std are the teacher's, or take another data.synthesis.method"
            )
        for one in (optimizer, self._head):
            if one is not None:
                one.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        if start_of is not None:
            for start, now in zip(self._module.parameters(), start_of.parameters(), strict=True):
                if now.grad is not None:
                    start.grad = now.grad.clone() if start.grad is None else start.grad.add_(now.grad)
        for one in (optimizer, self._head):
            if one is not None:
                one.step()

    def _judged(self, images: Tensor, drawn: Drawn, *, turn: int, epoch: float) -> Tensor:
        """What these images cost, with the gradient of their pixels."""
        batch = self._shown(images, drawn, turn=self.made * self.order.steps + turn)
        return cost_of(
            self.objective, batch, teacher=self._teacher, student=self._student, network=self._network, epoch=epoch
        )

    def _shown(self, images: Tensor, drawn: Drawn, *, turn: int) -> Batch:
        view = None
        if "contrast" in self.order.method.priors:
            view = self.order.input(_part_of(images, seed=mixed(self.order.seed, turn)), turn=turn)
        return Batch(x=self.order.input(images, turn=turn), y=drawn.wanted, view=view)

    def _probe(self) -> Batch:
        drawn = self.order.drawn(torch.Generator().manual_seed(self.order.seed), count=PROBE)
        with still(self._module):
            return self._shown(drawn.by(self._module), drawn, turn=0)


def _part_of(images: Tensor, *, seed: int) -> Tensor:
    """A second view: the same part of each image, as large as the whole, perhaps mirrored."""
    dice = torch.Generator().manual_seed(seed)
    share, down, right, mirrored = torch.rand(4, generator=dice).tolist()
    low, high = CROP
    height, width = (max(1, round(side * (low + (high - low) * share))) for side in images.shape[2:])
    top, left = (
        round((side - one) * lot)
        for side, one, lot in zip(images.shape[2:], (height, width), (down, right), strict=True)
    )
    part = images[:, :, top : top + height, left : left + width]
    whole = F.interpolate(part, size=images.shape[2:], mode="bilinear", align_corners=False)
    return whole.flip(3) if mirrored < 0.5 else whole
