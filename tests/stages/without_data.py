"""A task for which images can be made in seconds: stripes that lie, or stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgepress.stages.artifact import Context
from edgepress.stages.data import Data
from edgepress.stages.settings import DataSettings
from edgepress.stages.synthesis.methods import METHODS
from edgepress.stages.synthesis.open import open_synthetic
from edgepress.stages.synthesis.settings import Synthesis
from edgepress.targets import profiles

SHAPE = (1, 8, 8)
MEAN, STD = (0.5,), (0.3,)
FINGERPRINT = "0123456789abcdef"


def stripes(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Pixels of 0 to 1, and 0 for lying stripes."""
    dice = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=dice)
    line = ((torch.arange(8)[None] + torch.randint(4, (count, 1), generator=dice)) % 4 < 2).float()
    standing, lying = line[:, None, :].expand(-1, 8, 8), line[:, :, None].expand(-1, 8, 8)
    pixels = torch.where(labels.view(-1, 1, 1) == 0, lying, standing)
    return (0.6 * pixels + 0.4 * torch.rand(count, 8, 8, generator=dice)).unsqueeze(1), labels


def net(*, seed: int, norms: bool, width: int = 8) -> nn.Module:
    """Two convolutions and a mean over the picture."""
    torch.manual_seed(seed)
    norm: Callable[[], nn.Module] = (lambda: nn.BatchNorm2d(width)) if norms else nn.Identity
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), norm(), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), norm(), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2),
    ).eval()  # fmt: skip


def teacher(*, norms: bool, width: int = 8) -> nn.Module:
    """A network that tells the two apart."""
    module = net(seed=0, norms=norms, width=width)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for step in range(120):
        images, labels = stripes(64, seed=1000 + step)
        optimizer.zero_grad()
        F.cross_entropy(module.train()(normalized(images)), labels).backward()
        optimizer.step()
    return module.eval()


def normalized(images: Tensor) -> Tensor:
    return (images - MEAN[0]) / STD[0]


def agreement(one: nn.Module, other: nn.Module) -> float:
    """Share of real stripes that both take for the same, in per cent."""
    images, _ = stripes(512, seed=7)
    with torch.no_grad():
        first, second = (module.eval()(normalized(images)).argmax(dim=1) for module in (one, other))
    return 100 * float((first == second).float().mean())


def settings(source: str = "generated", **changes: Any) -> DataSettings:
    """Few images, and small ones."""
    few: dict[str, Any] = {"images": 64, "batch": 16, "width": 4, "latent": 8, "rounds": 3, "restarts": 1}
    return DataSettings(source=source, shape=SHAPE, mean=MEAN, std=STD, synthesis=Synthesis(**(few | changes)))


def opened(wanted: DataSettings, module: nn.Module, cache: Path, *, seed: int = 0, **changes: Any) -> Data:
    return open_synthetic(wanted, teacher=module, fingerprint=FINGERPRINT, seed=seed, cache=cache, **changes)


def context(data: Data, work: Path, **changes: Any) -> Context:
    return Context(data=data, profile=profiles.load("openvino-cpu"), work=work, seed=0, build={}, **changes)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generators that hardly warm up, and methods of a few steps: what they make is of no use, and there at once."""
    for name, method in METHODS.items():
        steps, warm_up = min(2, method.steps), min(2, method.warm_up)
        monkeypatch.setitem(METHODS, name, dataclasses.replace(method, steps=steps, warm_up=warm_up))
