"""LeNet-5 and its half, as in the papers on distillation without data (Chen et al., 2019, arXiv:1904.01186)."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet(nn.Module):
    """Three convolutions of 5 x 5, two poolings, two linear layers. Takes (batch, 1, 28, 28); no batch norm."""

    def __init__(self, widths: tuple[int, int, int, int], classes: int = 10) -> None:
        super().__init__()
        first, second, third, hidden = widths
        self.features = nn.Sequential(
            nn.Conv2d(1, first, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(second, third, 5), nn.ReLU(),
        )  # fmt: skip
        self.hidden = nn.Sequential(nn.Linear(third, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.features(x).flatten(1)))  # type: ignore[no-any-return]


def lenet5() -> nn.Module:
    """The teacher: 6, 16 and 120 channels, 84 hidden units."""
    return LeNet((6, 16, 120, 84))


def lenet5_half() -> nn.Module:
    """The student: half of each."""
    return LeNet((3, 8, 60, 42))
