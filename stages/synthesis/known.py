"""What must be known of a network before images can be made from it: what it takes, and what it tells apart."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...targets.errors import RecipeError
from ..contract import Preprocessing, Tokens
from ..crew import Crew
from ..settings import DataSettings

if TYPE_CHECKING:
    from ..data import Data

SMALLEST = 8  # pixels to a side: a generator doubles its images at least twice


@dataclass(frozen=True, kw_only=True)
class Known:
    """The network that images are made from, on the device that makes them."""

    network: nn.Module
    fingerprint: str
    classes: int
    preprocessing: Preprocessing

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what it takes."""
        return (self.preprocessing.channels, *self.preprocessing.size)

    @property
    def has_norms(self) -> bool:
        """See the function."""
        return has_norms(self.network)


def has_norms(network: nn.Module) -> bool:
    """Batch norms that kept statistics of the data: torch's, frozen and synchronised ones, and those of libraries."""
    return any(
        "BatchNorm" in type(part).__name__ and isinstance(getattr(part, "running_mean", None), Tensor)
        for part in network.modules()
    )


def preprocessing_of(settings: DataSettings, judges: Data | None) -> Preprocessing:
    """What the network takes. RecipeError: nobody says."""
    if judges is not None:
        if isinstance(judges.preprocessing, Tokens) or judges.task.name != "classification":
            raise RecipeError(
                f"data.source {settings.source}: images are made from classifiers of images, and data.eval "
                f"{settings.eval} is for {judges.task.name} of {judges.task.samples}. Give data of the task."
            )
        return judges.preprocessing
    shape = settings.shape
    if shape is None and settings.size is not None and settings.mean is not None:
        height, width = settings.size if isinstance(settings.size, tuple) else (settings.size, settings.size)
        shape = (len(settings.mean), height, width)
    missing = [
        f"data.{name} ({what})"
        for name, what, value in (
            ("shape", "channels, height and width of the network's input, such as [3, 32, 32]", shape),
            ("mean", "what is subtracted from each channel, in units of 0 to 1", settings.mean),
            ("std", "what each channel is divided by after that", settings.std),
        )
        if value is None
    ]
    if missing:
        raise RecipeError(
            f"data.source {settings.source}: without data only you know {'; '.join(missing)}. A network that sees "
            "images normalised otherwise than in its training answers at random, and so would be what is made from it. "
            "Say it, for example --set 'data.mean=[0.485,0.456,0.406]' --set 'data.std=[0.229,0.224,0.225]'. A network "
            "that takes tokens needs data: for texts nothing is made."
        )
    assert shape is not None, "it is not missing"
    assert settings.mean is not None, "it is not missing"
    assert settings.std is not None, "it is not missing"
    channels, height, width = shape
    for key, values in (("mean", settings.mean), ("std", settings.std)):
        if len(values) != channels:
            raise RecipeError(f"data.{key} has {len(values)} values and data.shape says {channels} channels")
    if min(settings.std) <= 0:
        raise RecipeError(f"data.std is {list(settings.std)}: pixels are divided by it, so each must be above 0")
    if min(height, width) < SMALLEST:
        raise RecipeError(
            f"data.shape is {list(shape)}: images with fewer than {SMALLEST} pixels to a side are not made"
        )
    return Preprocessing(size=(height, width), channels=channels, mean=settings.mean, std=settings.std)


def look(
    teacher: nn.Module, fingerprint: str, preprocessing: Preprocessing, judges: Data | None, *, crew: Crew
) -> Known:
    """A copy of the teacher that never learns, and how many classes it tells apart.

    RecipeError: it is no classifier of such images.
    """
    network = copy.deepcopy(teacher).eval().requires_grad_(False)
    network.to(device=crew.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    example = preprocessing.example(2)
    by = "x".join(str(side) for side in example.shape[1:])
    try:
        with torch.no_grad():
            answers = network(example.to(crew.device))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise RecipeError(
            f"the model cannot take images of {by} (channels x height x width), in which they would be made: "
            f"{str(error).splitlines()[0]}. Give data.shape as it is in the model's training. Networks that take "
            "tokens need data: for texts nothing is made."
        ) from error
    if not isinstance(answers, Tensor) or answers.ndim != 2 or answers.shape[1] < 2:
        said = tuple(answers.shape[1:]) if isinstance(answers, Tensor) else type(answers).__name__
        raise RecipeError(
            f"without data images are made from classifiers, with a number for each of two classes or more; this model "
            f"answers {said} to an image. Give data for it."
        )
    classes = answers.shape[1]
    if judges is not None and len(judges.classes) != classes:
        raise RecipeError(f"data.eval has {len(judges.classes)} classes and the model tells {classes} apart")
    return Known(network=network, fingerprint=fingerprint, classes=classes, preprocessing=preprocessing)
