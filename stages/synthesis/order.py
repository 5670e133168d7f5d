"""What images are to be made, by what, and from which random numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..augment import augment, lots
from ..contract import Preprocessing
from ..distill.samples import CHANNELS_LAST
from ..distill.settings import Loss
from .generators import Generator, width_for
from .known import has_norms
from .methods import Method
from .settings import Synthesis
from .spread import Spread

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """z: random numbers behind each image. told: the classes that the generator is told. wanted: that they shall be."""

    z: Tensor | None
    told: Tensor | None
    wanted: Tensor | None

    def by(self, generator: Generator) -> Tensor:
        """The images, 0 to 1."""
        made: Tensor = generator(self.z, self.told)
        return made


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be made, and for whom. classes: that the teacher tells apart.

    augmentation: how the images are varied before anybody sees them, so that they survive it.
    """

    method: Method
    settings: Synthesis
    classes: int
    preprocessing: Preprocessing
    seed: int
    device: torch.device
    augmentation: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """(channels, height, width) of an image."""
        return (self.preprocessing.channels, *self.preprocessing.size)

    @property
    def batch(self) -> int:
        """Images at a time."""
        return self.settings.batch or self.method.batch

    @property
    def images(self) -> int:
        """Of the pool that is made before the first stage."""
        return self.settings.images or self.method.first.images

    @property
    def steps(self) -> int:
        """Of the generator for each batch."""
        return self.settings.steps or self.method.steps

    @property
    def rounds(self) -> int:
        """Of an epoch, while a student learns."""
        return self.settings.rounds or self.method.rounds

    @property
    def latent(self) -> int:
        """Random numbers behind an image."""
        return self.settings.latent or self.method.latent

    def generator(self, teacher: nn.Module, *, number: int = 0) -> Generator:
        """A new one, the same for the same number. teacher: so wide that an image costs about as much as it does."""
        from ..pruning import count_macs

        macs = count_macs(teacher, self.preprocessing.example(1).to(self.device))
        made = Generator(
            self.shape,
            latent=self.latent,
            width=self.settings.width or width_for(macs, self.shape),
            classes=self.classes if self.method.is_conditional else None,
            noisy_layers=math.ceil(self.batch / self.classes) if self.method.renews else 1,
            ending=Spread(self.preprocessing.mean, self.preprocessing.std) if self.method.spreads else None,
            seed=mixed(self.seed, number),
        )
        return made.to(device=self.device, memory_format=CHANNELS_LAST)  # type: ignore[call-overload,no-any-return]

    def drawn(self, dice: torch.Generator, *, count: int | None = None) -> Drawn:
        """What a batch of images is made from."""
        count = self.batch if count is None else count
        z = torch.randn(count, self.latent, generator=dice).to(self.device)
        first = int(torch.randint(self.classes, (1,), generator=dice))
        y = ((first + torch.arange(count)) % self.classes).to(self.device)  # alike: by lot some would be missing
        method = self.method
        return Drawn(
            z=None if method.renews else z,
            told=y if method.is_conditional else None,
            wanted=y if method.wants else None,
        )

    def input(self, images: Tensor, *, turn: int) -> Tensor:
        """What networks take of these images, with the gradient of the pixels. turn: they are varied by."""
        if self.augmentation:
            dice = lots(torch.arange(len(images)), seed=self.seed, turn=turn)
            images = augment(images, self.augmentation, dice)
        return self.preprocessing.normalize(images).contiguous(memory_format=CHANNELS_LAST)

    def losses(self, teacher: nn.Module, *, is_alone: bool) -> Mapping[str, Loss]:
        """What the images are made by. is_alone: there is no student yet."""
        made_by = {**self.method.priors, **(self.method.with_norms if has_norms(teacher) else {})}
        return made_by if is_alone else {**made_by, **self.method.against}


def mixed(seed: int, *numbers: int) -> int:
    """One seed of several numbers."""
    for number in numbers:
        seed = (seed * 1_000_003 + number * 7_919 + 29) % 2**62
    return seed
