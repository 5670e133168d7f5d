"""Open the data of a recipe: samples to train on, samples to choose by, and samples that choose nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..targets.errors import RecipeError, did_you_mean
from .contract import Preprocessing, Tokens
from .datasets.arrays import open_file, read_mapping
from .datasets.builtin import open_builtin
from .datasets.found import Found, Request
from .datasets.imagefolder import open_imagefolder
from .datasets.mnist import open_mnist
from .datasets.zoo import open_torchvision
from .holdout import apportion, judging
from .progress import Progress, Quiet
from .settings import DataSettings
from .splits import Split, loader
from .tasks import CLASSIFICATION, Task

if TYPE_CHECKING:
    from .synthesis.synthetic import Synthetic

__all__ = ["Data", "Split", "loader", "open_data", "open_judging", "open_memory"]

# ImageNet's, which nearly every published network for colour images was trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JUDGING = ("test", "val", "train")  # of data that only judge, the first of these that there is

SOURCES: dict[str, Callable[[Request], Found]] = {
    "imagefolder": open_imagefolder,
    "torchvision": open_torchvision,
    "mnist": open_mnist,
    "builtin": open_builtin,
}


@dataclass(frozen=True, kw_only=True)
class Data:
    """Every image, or text, that a run may see. notes: how the splits came about, in sentences for the report.

    train: None where the source has no images to train on. fingerprint: equal for equal pixels, labels,
    splits and settings.
    """

    train: Split | None
    val: Split
    test: Split
    classes: tuple[str, ...]
    preprocessing: Preprocessing | Tokens
    fingerprint: str
    notes: tuple[str, ...]
    augment: tuple[str, ...] = ()
    task: Task = CLASSIFICATION
    decides: Split | None = None  # real samples that choose between variants, where those of `val` were made
    transfer: Split | None = None  # images without labels that distillation takes in place of those of `train`
    synthetic: Synthetic | None = None  # how the images were made, where there are no data of the task

    @property
    def deciding(self) -> Split:
        """What chooses between variants, and tells whether a budget of accuracy is met before the test."""
        return self.val if self.decides is None else self.decides

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of one image, (length,) of a text."""
        return self.test.shape

    @property
    def network(self) -> dict[str, Any]:
        """What a network for these data must take and answer, as `models.build` wants to know it."""
        tokens = self.preprocessing if isinstance(self.preprocessing, Tokens) else None
        return {"classes": len(self.classes), "shape": self.shape, "task": self.task, "tokens": tokens}

    @property
    def teachers_network(self) -> dict[str, Any]:
        """The same of a teacher's, which may be shown something else."""
        theirs = self.test.teacher_pixels
        return self.network if theirs is None else {**self.network, "shape": theirs.shape, "tokens": None}


def open_data(
    settings: DataSettings,
    *,
    seed: int,
    cache: Path,
    given_weights: bool,
    progress: Progress | None = None,
    task: str | None = None,
) -> Data:
    """Read the images that the settings name, and divide them.

    seed: of the division. cache: folder for decoded images; it may be deleted at any time. given_weights: the
    network was trained before, perhaps on the training images, so that nothing may be chosen by those. task: what the
    recipe wants them for; None: the data tell, and classification is what most of them are for.
    RecipeError: the source cannot be read, or its images do not fit together.
    """
    opener, name = opener_of(settings.source)
    request = Request(name=name, settings=settings, seed=seed, cache=cache, progress=progress or Quiet(), task=task)
    found = opener(request)
    if task is not None and task != found.task.name:
        raise RecipeError(
            f"task: {task}, and data.source {settings.source} has one class for each image. Load the data in a "
            "function of your own and write data.source: path/to/file.py:function"
        )
    return _data(found, settings, seed=seed, given_weights=given_weights)


def open_judging(settings: DataSettings, *, seed: int, cache: Path, progress: Progress | None = None) -> Data:
    """What `data.eval` names: its test images, or what there is of it. Nothing else of it is looked at.

    A fifth of them, stratified, is `val`, which decides; where that would be few, all of them are both.

    RecipeError: as `open_data`; they are not of data.shape; nobody says how the network's images were normalised.
    """
    assert settings.eval is not None, "somebody asked for data that judge"
    size = settings.shape[1:] if settings.size is None and settings.shape is not None else settings.size
    changes = {"source": settings.eval, "eval": None, "synthesis": None, "augment": (), "size": size}
    real = settings.model_copy(update=changes)
    opener, name = opener_of(real.source)
    found = opener(
        Request(name=name, settings=real, seed=seed, cache=cache, progress=progress or Quiet(), only=JUDGING)
    )
    kept = next(split for part in JUDGING if (split := found.splits.get(part)) is not None)
    _refuse_guesses(settings, found, kept.shape)
    return _of(found, judging(kept, seed=seed), (), real)


def _refuse_guesses(settings: DataSettings, found: Found, shape: tuple[int, ...]) -> None:
    """RecipeError: images would be made in another shape, or normalised otherwise, than the network knows."""
    if settings.shape is not None and settings.shape != shape:
        raise RecipeError(
            f"data.shape is {list(settings.shape)} and the {found.task.samples} of data.eval {settings.eval} are "
            f"{list(shape)} (channels, height, width): both are what the network takes, so give them alike"
        )
    missing = [key for key in ("mean", "std") if getattr(settings, key) is None]
    if found.tokens is None and not found.mean and missing:
        raise RecipeError(
            f"{' and '.join(f'data.{key}' for key in missing)}: nothing is known of how the images of data.eval "
            f"{settings.eval} were normalised when the network was trained, and images are made by it. Say it, for "
            "example --set 'data.mean=[0.485,0.456,0.406]' --set 'data.std=[0.229,0.224,0.225]'"
        )


def open_memory(
    splits: Mapping[str, Any],
    settings: DataSettings,
    *,
    seed: int,
    cache: Path,
    given_weights: bool,
    task: str | None = None,
) -> Data:
    """The same for images that the caller holds: what a user's data function returns."""
    request = Request(name="", settings=settings, seed=seed, cache=cache, task=task)
    found = read_mapping(request, splits, source="data")
    return _data(found, settings, seed=seed, given_weights=given_weights)


def _data(found: Found, settings: DataSettings, *, seed: int, given_weights: bool) -> Data:
    parts, notes = apportion(
        found.splits,
        seed=seed,
        val_share=settings.val_share,
        given_weights=given_weights,
        source=settings.source,
        samples=found.task.samples,
    )
    return _of(found, parts, notes, settings)


def _of(found: Found, parts: Mapping[str, Split], notes: Sequence[str], settings: DataSettings) -> Data:
    pixel_notes: list[str] = []
    preprocessing: Preprocessing | Tokens
    if found.tokens is not None:
        preprocessing = found.tokens
    else:
        preprocessing, pixel_notes = _preprocessing(settings, found, parts["test"].shape)
    return Data(
        train=parts.get("train"),
        val=parts["val"],
        test=parts["test"],
        classes=found.classes,
        preprocessing=preprocessing,
        fingerprint=_fingerprint(found, parts, preprocessing, settings.augment),
        notes=(*found.notes, *notes, *pixel_notes),
        augment=settings.augment,
        task=found.task,
    )


def opener_of(source: str) -> tuple[Callable[[Request], Found], str]:
    """Who opens such a source, and what follows the colon. RecipeError: nobody does."""
    kind, colon, name = source.partition(":")
    if colon and kind in SOURCES:
        if not name:
            raise RecipeError(f"data.source {source!r} names nothing after the colon; for example {kind}:NAME")
        return SOURCES[kind], name
    if ".py" in source:
        return open_file, source
    close = did_you_mean(kind, SOURCES) if colon else ""
    raise RecipeError(
        f"data.source {source!r} is of no known kind{close}. Write imagefolder:PATH, torchvision:NAME, "
        "mnist:PATH, path/to/file.py:function or builtin:digits; without data generated, optimised, noise, "
        "images:FOLDER or cached:FOLDER."
    )


def _preprocessing(settings: DataSettings, found: Found, shape: tuple[int, ...]) -> tuple[Preprocessing, list[str]]:
    channels, height, width = shape
    usual = (found.mean, found.std) if found.mean else _usual(channels)
    mean = settings.mean if settings.mean is not None else usual[0]
    std = settings.std if settings.std is not None else usual[1]
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise RecipeError(
                f"data.{key} has {len(values)} values and the images have {channels} channels: "
                "give one for each channel"
            )
    if min(std) <= 0:
        raise RecipeError(f"data.std is {list(std)}: pixels are divided by it, so each value must be above 0")
    notes = []
    if settings.mean is None or settings.std is None:
        words = f"mean {_list(mean)}, std {_list(std)}"
        notes.append(f"pixels are normalised with {words}, for want of data.mean and data.std in the recipe")
    return Preprocessing(size=(height, width), channels=channels, mean=tuple(mean), std=tuple(std)), notes


def _usual(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return (0.5,) * channels, (0.5,) * channels


def _list(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _fingerprint(
    found: Found, parts: Mapping[str, Split], preprocessing: Preprocessing | Tokens, augment: tuple[str, ...]
) -> str:
    """Of everything that determines what a stage sees. The pixels are in the source's own digest."""
    digest = hashlib.sha256(found.digest.encode())
    for name in sorted(parts):
        digest.update(name.encode())
        digest.update(parts[name].rows.contiguous().numpy().data)
        digest.update(parts[name].labels().contiguous().numpy().data)
    settings = [found.task.name, preprocessing.facts(), list(augment), list(found.classes)]
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()
