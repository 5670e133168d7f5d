"""Small networks and data that tests share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from probers import FakeProber
from torch import Tensor, nn

from edgepress.stages.artifact import Artifact, Context
from edgepress.stages.contract import InputContract, Preprocessing
from edgepress.stages.data import Data
from edgepress.stages.quantization.frozen import FrozenLayer
from edgepress.stages.splits import in_memory
from edgepress.targets import profiles

SHAPE = (1, 8, 8)
CLASSES = 4


class Block(nn.Module):
    """A residual block with batch norm, as ResNets have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    """Stem, residual block, pool, head."""

    def __init__(self, width: int = 16, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.block = Block(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(F.relu(self.bn(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def net(*, seed: int = 0, width: int = 16, spread_norms: bool = True) -> Net:
    """Seeded, in eval mode, with batch norms that have seen something."""
    torch.manual_seed(seed)
    module = Net(width)
    if spread_norms:
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.2, 0.2)
                part.running_var.uniform_(0.5, 1.5)
                part.weight.data.uniform_(0.7, 1.3)
                part.bias.data.uniform_(-0.1, 0.1)
    return module.eval()


def stripes(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of four kinds that a small network tells apart in seconds: which quarter is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images = torch.randint(0, 120, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[:, row : row + 4, column : column + 4] += 60
    return images, labels


def data(*, train: int = 256, val: int = 64, test: int = 64) -> Data:
    """Those pictures, divided."""
    splits = {
        name: in_memory(*stripes(count, seed=seed))
        for seed, (name, count) in enumerate({"train": train, "val": val, "test": test}.items())
    }
    return Data(
        train=splits["train"], val=splits["val"], test=splits["test"],
        classes=tuple("abcd"), notes=(), fingerprint=f"{train}-{val}-{test}",
        preprocessing=Preprocessing(size=(8, 8), channels=1, mean=(0.3,), std=(0.25,)),
    )  # fmt: skip


def context(
    work: Path,
    *,
    target: str = "openvino-cpu",
    build: Mapping[str, Callable[[], nn.Module]] | None = None,
    seed: int = 0,
) -> Context:
    """Where every file takes as long as any other, which no test waits for."""
    return Context(
        data=data(), profile=profiles.load(target), work=work, seed=seed, build=build or {"model": net},
        prober=FakeProber(law=lambda model: 1.0),
    )  # fmt: skip


def artifact(module: nn.Module | None = None) -> Artifact:
    contract = InputContract(
        shape=SHAPE, dynamic_batch=False, classes=tuple("abcd"),
        preprocessing=Preprocessing(size=(8, 8), channels=1, mean=(0.3,), std=(0.25,)),
    )  # fmt: skip
    return Artifact(module=module or net(), contract=contract, base="model", key="0" * 16)


def with_float_biases(frozen: nn.Module) -> nn.Module:
    """Without the last rounding, by half a step of the sums, which training does not know: it may tip a value over."""
    for part in frozen.modules():
        if isinstance(part, FrozenLayer):
            part.whole_bias = None
    return frozen
