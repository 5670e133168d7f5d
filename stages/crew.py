"""Several processes that train one network (`torchrun`): who writes, who waits, how gradients become one.

Every process holds the whole network and takes its part of every batch. The network is not wrapped, as
DistributedDataParallel would: a wrapper renames the modules that are tapped, allows one pass for each update, and
knows nothing of adapters and opponents that learn beside the student. What is added up is added up by Accelerate.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..targets.errors import EdgepressError, StageError
from .launch import processes

PATIENCE = datetime.timedelta(days=7)  # the others wait while the main process measures, which may take hours
T = TypeVar("T")
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, kw_only=True)
class Crew:
    """One of `count` processes that do the same work; the one of rank 0 writes. Alone, nothing here does anything."""

    device: torch.device
    rank: int = 0
    count: int = 1
    quiet_group: Any = field(default=None, compare=False)  # to wait in without keeping a core busy

    @property
    def is_main(self) -> bool:
        """True for the one that writes files and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when everybody is here."""
        if self.count > 1:
            torch.distributed.barrier(group=self.quiet_group)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block while the others wait; then they do."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def part(self, places: Tensor) -> Tensor:
        """This process's part of a batch. StageError: there is not one for each."""
        if self.count == 1:
            return places
        if len(places) < self.count:
            raise StageError(f"a batch of {len(places)} cannot be divided among {self.count} processes")
        return places.tensor_split(self.count)[self.rank]

    def mean(self, values: Tensor, *, weight: float) -> Tensor:
        """The mean of everybody's values, each counting as `weight`: the samples that it was made from."""
        if self.count == 1:
            return values
        from accelerate.utils import reduce

        flat = torch.cat([values.reshape(-1).float() * weight, values.new_tensor([weight]).float()])
        added: Tensor = reduce(flat, reduction="sum")
        return (added[:-1] / added[-1]).reshape(values.shape).to(values.dtype)

    def average_gradients_(self, parameters: Sequence[nn.Parameter], *, weight: float) -> None:
        """Give everybody the gradient of the whole batch; a parameter that nobody has one for keeps none."""
        if self.count == 1 or not parameters:
            return
        there = torch.tensor([float(one.grad is not None) for one in parameters], device=self.device)
        found = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flat = self.mean(torch.cat([there, *(one.float().reshape(-1) for one in found)]), weight=weight)
        used, rest = flat[: len(parameters)].tolist(), flat[len(parameters) :]
        parts = torch.split(rest, [one.numel() for one in parameters])
        for parameter, share, part in zip(parameters, used, parts, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter)) if share > 0 else None

    def average_buffers_(self, module: nn.Module) -> None:
        """Give everybody the mean of what was collected apart, such as the statistics of batch norms."""
        if self.count == 1:
            return
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self.mean(buffer, weight=1.0))

    def start_alike_(self, *modules: nn.Module) -> None:
        """Give everybody the main process's weights."""
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        with torch.no_grad():
            for module in modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    tensor.copy_(broadcast(tensor.detach().contiguous()))

    def told(self, value: Any) -> Any:
        """What the main process says: anything that pickle takes, for these are processes of one program."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def in_main(self, work: Callable[[], T]) -> T | None:
        """What the main process finds out alone; None for the others. Its errors are raised in every process."""
        found, problem = None, None
        if self.is_main:
            try:
                found = work()
            except EdgepressError as error:
                problem = error
        problem = self.told(problem)
        if problem is not None:
            raise problem
        return found

    @contextmanager
    def joint_norms(self, module: nn.Module) -> Iterator[None]:
        """While the block runs, batch norms on GPUs see everybody's samples; on CPUs, where torch has no such
        norm, each process's own."""
        shared = [part for part in module.modules() if type(part) in NORMS] if self._has_joint_norms else []
        kinds = [type(part) for part in shared]
        for part in shared:  # not converted: an optimiser and taps hold these very modules
            part.process_group = None  # type: ignore[assignment]
            part.__class__ = nn.SyncBatchNorm
        try:
            yield
        finally:
            for part, kind in zip(shared, kinds, strict=True):
                part.__class__ = kind
                del part.process_group

    @property
    def _has_joint_norms(self) -> bool:
        return self.count > 1 and self.device.type == "cuda"


def crew() -> Crew:
    """This process and its fellows; the first call meets them. StageError: there are more of them than GPUs."""
    from accelerate import PartialState

    _, count = processes()
    if count == 1:
        device: torch.device = PartialState().device
        return Crew(device=device)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    gpus = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if 0 < gpus < here:
        raise StageError(f"{here} processes and {gpus} GPU here: start one for each, with --nproc-per-node {gpus}")
    state = PartialState(cpu=gpus == 0, timeout=PATIENCE)
    return Crew(
        device=state.device, rank=state.process_index, count=state.num_processes, quiet_group=_quiet(state.backend)
    )


_quiet_groups: dict[str, Any] = {}  # a group can be made once; by backend, for the life of the process


def _quiet(backend: str) -> Any:
    """NCCL waits on the GPU with a busy core, which would spoil what the main process measures meanwhile."""
    if backend == "gloo":
        return None
    if backend not in _quiet_groups:
        _quiet_groups[backend] = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    return _quiet_groups[backend]
