"""A small network that makes images out of random numbers: pixels between 0 and 1, of any size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]  # channels, height, width

SLOPE = 0.2  # of the leaky rectifiers, as in all the papers
SMALL = 64  # pixels; below it twice two are enough, as in the papers, whose images have 32
START = 8  # pixels at which larger images begin, at least
NARROW, WIDE, MULTIPLE = 8, 64, 8  # channels of a generator; the papers' is 64 whatever the networks cost
FIRST_STD = 0.02  # of a first layer that starts again, as in the reference code of FastDFKD


class Generator(nn.Module):
    """Linear, batch norm, then (twice the size, convolution, batch norm, leaky ReLU) twice or more, and an ending.

    The network of DAFL (Chen et al., 2019, arXiv:1904.01186), DFAD (Fang et al., 2019, arXiv:1912.11006) and ZSKT
    (Micaelli & Storkey, 2019, arXiv:1905.09768): from 2 w channels at a quarter of the size to w at the whole of it.
    The ending gives pixels from 0 to 1, so that images can be kept: a sigmoid, as in CMI (Fang et al., 2021,
    arXiv:2105.08584), or a `Spread`. Images of 64 pixels and more are doubled more often, from 8 to 16 pixels on; what
    sticks out is cut off evenly.

    classes: it is told which class to draw. Each has a fixed random direction, standardised over the classes, and a
    linear layer turns it into the latent numbers. Where `renew` gives that layer new random weights for every batch and
    no z is given, the layer is the noise: NAYER, Tran et al., 2024 (arXiv:2310.00258), whose directions come from a
    language model. Where z is given it is multiplied by the layer's answer, a learned embedding of the class: GDFQ,
    Xu et al., 2020 (arXiv:2003.03603).
    """

    directions: Tensor

    def __init__(
        self,
        shape: Shape,
        *,
        latent: int = 100,
        width: int = NARROW,
        classes: int | None = None,
        noisy_layers: int = 1,
        ending: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        """noisy_layers: that take turns among a batch's images of one class, so that these differ without z. ending:
        makes pixels of the last convolution's answers; None: a sigmoid."""
        super().__init__()
        assert min(shape[1:]) >= 8, "an image has at least 8 pixels on each side"
        assert classes is None or classes > 1, "a class is told from others"
        self.shape, self.latent, self.width, self.classes = shape, latent, width, classes
        self.start = start_of(shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Linear(latent, 2 * width * math.prod(self.start))
            self.body = _body(shape, width, ending or nn.Sigmoid())
            if classes is not None:
                directions = F.normalize(torch.randn(classes, latent), dim=1)
                spread = directions.std(dim=0, correction=0).clamp_min(1e-6)
                self.register_buffer("directions", (directions - directions.mean(dim=0)) / spread)
                self.noise = nn.Parameter(torch.randn(noisy_layers, latent, latent))
                self.noise_bias = nn.Parameter(torch.zeros(noisy_layers, latent))

    def forward(self, z: Tensor | None, y: Tensor | None = None) -> Tensor:
        """Pixels from 0 to 1, (batch, channels, height, width).

        z: (batch, latent), or None where classes are told and noise is in the layer. y: (batch,), the class of each.
        """
        if y is not None:
            told = self._told(y)
            z = told if z is None else z * told
        assert z is not None, "a generator needs random numbers, or classes"
        maps = self.first(z).view(len(z), 2 * self.width, *self.start)
        pixels: Tensor = self.body(maps)
        top, left = ((have - want) // 2 for have, want in zip(pixels.shape[2:], self.shape[1:], strict=True))
        return pixels[:, :, top : top + self.shape[1], left : left + self.shape[2]]

    @torch.no_grad()
    def renew(self, generator: torch.Generator) -> None:
        """New random weights for the layer between a class and its latent numbers: N(0, 1), as in NAYER."""
        assert self.classes is not None, "a generator that is told no classes has no such layer"
        self.noise.copy_(torch.randn(self.noise.shape, generator=generator))
        self.noise_bias.zero_()

    @torch.no_grad()
    def reset_first(self, generator: torch.Generator) -> None:
        """New random weights for the first layer, N(0, 0.02^2), which shakes up images that have become alike."""
        self.first.weight.copy_(FIRST_STD * torch.randn(self.first.weight.shape, generator=generator))
        self.first.bias.zero_()

    def _told(self, y: Tensor) -> Tensor:
        """(batch, latent): each image takes the layer of its turn among the batch's images of its class."""
        assert self.classes is not None, "a generator that is told no classes was given some"
        turns = F.one_hot(y, self.classes).cumsum(dim=0).gather(1, y[:, None]).squeeze(1) - 1
        by_layer = torch.einsum("lde,ce->lcd", self.noise, self.directions) + self.noise_bias[:, None]
        return by_layer[turns % len(self.noise), y]


def start_of(shape: Shape) -> tuple[int, int]:
    """Height and width at which an image begins."""
    shrunk = 2 ** _doublings(shape)
    return math.ceil(shape[1] / shrunk), math.ceil(shape[2] / shrunk)


def macs(shape: Shape, *, width: int, latent: int = 100) -> int:
    """Multiply-accumulates of one image."""
    height, across = start_of(shape)
    total = latent * 2 * width * height * across
    for inputs, outputs in _channels(shape, width):
        height, across = 2 * height, 2 * across
        total += 9 * inputs * outputs * height * across
    return total + 9 * width * shape[0] * height * across


def width_for(budget_macs: int, shape: Shape) -> int:
    """The widest generator whose image costs at most so many multiply-accumulates, from 8 to 64 channels.

    budget_macs: of the teacher and the student for one image, so that making images takes about as long as looking at
    them.
    """
    fitting = [width for width in range(NARROW, WIDE + 1, MULTIPLE) if macs(shape, width=width) <= budget_macs]
    return max(fitting, default=NARROW)


def _doublings(shape: Shape) -> int:
    side = max(shape[1:])
    return 2 if side < SMALL else int(math.log2(side / START))


def _channels(shape: Shape, width: int) -> list[tuple[int, int]]:
    """Channels before and after each convolution but the last."""
    return [(2 * width, 2 * width)] * (_doublings(shape) - 1) + [(2 * width, width)]


def _body(shape: Shape, width: int, ending: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = [nn.BatchNorm2d(2 * width)]
    for inputs, outputs in _channels(shape, width):
        layers += [
            nn.Upsample(scale_factor=2),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(SLOPE),
        ]
    return nn.Sequential(*layers, nn.Conv2d(width, shape[0], 3, padding=1), ending)
