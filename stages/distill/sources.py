"""Teachers: a network that never learns, an average of the student, or the student as it was."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..tensors import fill_
from .nouns import Batch, Out
from .watching import answer


class Frozen:
    """A network that answers and never learns: in eval mode, without gradients, whatever the student does.

    taps: which features it tells besides its logits; set when the losses are wired.
    """

    def __init__(self, module: nn.Module, *, taps: Sequence[str] = ()) -> None:
        self.module: nn.Module | None = module.eval()
        self._network = module
        self.taps = tuple(taps)

    def see(self, batch: Batch) -> Out:
        x = batch.x if batch.teacher_x is None else batch.teacher_x
        if self._network.training:  # whoever switched it: dropout and batch norm stay off
            self._network.eval()
        with torch.no_grad():
            return answer(self._network, x, self.taps)

    def to(self, device: torch.device) -> None:
        self._network.to(device)

    def after(self, epoch: int) -> None: ...

    def stepped(self) -> None: ...

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint must hold to go on: nothing, where the network comes from elsewhere."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Snapshot(Frozen):
    """The student as it was when training began.

    With the old classes as a mask this is the teacher of learning without forgetting: Li and Hoiem, 2016
    (arXiv:1606.09282).
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__(copy.deepcopy(student).requires_grad_(False))

    def state_dict(self) -> Mapping[str, Any]:
        return {"network": self._network.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        fill_(self._network, state["network"])


class PreviousEpoch(Snapshot):
    """The student as it was after the last epoch; before the first one has ended, as it was at the start."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__(student)
        self._student = student

    def after(self, epoch: int) -> None:
        self._network.load_state_dict(self._student.state_dict())


class Average(Snapshot):
    """The student's average over its own steps: w' <- d w' + (1 - d) w, with d = min(decay, 1 - 1 / (step + 1)).

    Mean teacher, Tarvainen and Valpola, 2017 (arXiv:1703.01780): decay .999, and the same warm-up in the authors'
    code, so that the first steps, which know nothing yet, are soon forgotten. Batch norm's statistics are averaged
    like weights, because they belong to them.
    """

    def __init__(self, student: nn.Module, *, decay: float = 0.999) -> None:
        super().__init__(student)
        self._student, self.decay, self.steps = student, decay, 0

    def stepped(self) -> None:
        self.steps += 1
        decay = min(self.decay, 1 - 1 / (self.steps + 1))
        learned = self._student.state_dict()
        with torch.no_grad():
            for name, value in self._network.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(learned[name].to(value.dtype), 1 - decay)
                else:
                    value.copy_(learned[name])

    def state_dict(self) -> Mapping[str, Any]:
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = int(state["steps"])
