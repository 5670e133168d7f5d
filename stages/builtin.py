"""The example that needs no download: 1797 scans of handwritten digits, and two small networks for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .splits import Split, divide, in_memory

DIGITS_MEAN, DIGITS_STD = 0.305, 0.376  # of all scans, in units of 0 to 1
DIGITS_SEED = 0  # of the division, whatever the run's seed is: figures of two runs are on the same images


def digits() -> dict[str, Split]:
    """Scans of handwritten digits, 8 x 8 pixels, grey: 60 % train, 15 % val, 25 % test, stratified.

    They come with scikit-learn: the test part of Alpaydin and Kaynak's
    Optical Recognition of Handwritten Digits (UCI).
    """
    from sklearn.datasets import load_digits

    scans, digit = load_digits(return_X_y=True)
    images = (torch.from_numpy(scans) * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)
    labels = torch.from_numpy(digit).to(torch.int64)
    generator = torch.Generator().manual_seed(DIGITS_SEED)
    test, others = divide(labels, 0.25, generator=generator)
    val, train = divide(labels[others], 0.2, generator=generator)
    whole = in_memory(images, labels)
    rest = whole.subset(others)
    return {"train": rest.subset(train), "val": rest.subset(val), "test": whole.subset(test)}


class Residual(nn.Module):
    """Two convolutions with a bypass: relu(x + conv(relu(conv(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = _convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Teacher(nn.Module):
    """24 million multiply-accumulates: enough that pruning and INT8 show, few enough to train while one waits."""

    def __init__(self, classes: int, *, width: int) -> None:
        super().__init__()
        self.stem = _convolution(1, width)
        self.fine = Residual(width)
        self.down = _convolution(width, 2 * width, stride=2)
        self.coarse = Residual(2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fine(F.relu(self.stem(x)))
        x = self.coarse(F.relu(self.down(x)))
        return self.head(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class Student(nn.Module):
    """The same without its bypasses and two thirds as wide: a quarter of the multiply-accumulates."""

    def __init__(self, classes: int, *, width: int) -> None:
        super().__init__()
        self.stem = _convolution(1, width)
        self.fine = _convolution(width, width)
        self.down = _convolution(width, 2 * width, stride=2)
        self.coarse = _convolution(2 * width, 2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.stem, self.fine, self.down, self.coarse):
            x = F.relu(part(x))
        return self.head(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def digits_teacher(*, num_classes: int = 10) -> nn.Module:
    """Untrained. Takes (batch, 1, 8, 8)."""
    return Teacher(num_classes, width=96)


def digits_student(*, num_classes: int = 10) -> nn.Module:
    """Untrained. Takes (batch, 1, 8, 8)."""
    return Student(num_classes, width=64)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "digits-teacher": digits_teacher,
    "digits-student": digits_student,
}


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
    )
