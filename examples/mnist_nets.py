"""Two convolutional networks for MNIST, as a user would write them: one to learn from, one to ship."""

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Four convolutions with batch norm, two poolings, one hidden layer. Takes (batch, 1, 28, 28)."""

    def __init__(self, width: int, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *block(1, width),
            *block(width, width),
            nn.MaxPool2d(2),
            *block(width, 2 * width),
            *block(2 * width, 2 * width),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Linear(2 * width * 7 * 7, 4 * width)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).flatten(1)
        x = self.dropout(nn.functional.relu(self.hidden(x)))
        return self.head(x)


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """A convolution with its batch norm and activation."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def teacher() -> nn.Module:
    """About 42 million multiply-accumulates."""
    return ConvNet(48)


def assistant() -> nn.Module:
    """About a quarter of the teacher's."""
    return ConvNet(24)


def tiny() -> nn.Module:
    """About a thirty-fifth of the teacher's."""
    return ConvNet(8)


def student() -> nn.Module:
    """About half of that."""
    return ConvNet(32)
