"""Open data that are none: images made from a network, or of another kind, with its answers for labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ..crew import Crew
from ..crew import crew as meet
from ..data import Data, open_judging
from ..evaluation import logits
from ..progress import Progress, Quiet
from ..settings import DataSettings
from ..splits import Split, divide, thin
from ..transfer import pictures_of
from .known import Known, look, preprocessing_of
from .manifest import maker_of, refuse_empty
from .methods import Method, asked_of, choose
from .order import Order
from .pool import Pool
from .score import examine
from .settings import Synthesis, kind_of
from .starts import best_start, key_of
from .synthetic import Synthetic
from .work import too_few

VAL_SHARE = 0.2  # of the images: they choose epochs, and nobody learns from them
TEST_SHARE = 0.2  # of the images: they judge agreement where there are no data to judge by, and choose nothing
SCORED = 2048  # pictures of another kind, of which there may be very many


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Images, unlabelled yet. digest: equal for equal images."""

    images: Split
    digest: str
    synthetic: Synthetic
    notes: Sequence[str]


def open_synthetic(
    settings: DataSettings,
    *,
    teacher: nn.Module,
    fingerprint: str,
    seed: int,
    cache: Path,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda text: None,
    only_calibrates: bool = False,
) -> Data:
    """Data made from a network alone: restartable, and reused where they were made before.

    settings: whose source is one of generated, optimised, noise, images:FOLDER and cached:FOLDER. teacher: stays as it
    is. fingerprint: of its weights. seed: of everything random. cache: folder for the images; it may be deleted at any
    time. note: told what the user should know. only_calibrates: no student will learn from the images.

    Train and validation images are labelled by what the teacher answers; so are the test images, unless `eval` names
    real data, of which the test images judge and nothing else is used; a fifth of them, where they are many, chooses
    between variants, and the rest is the test. RecipeError: something is missing that only the
    user knows, or a pool is not of this teacher.
    """
    crew = meet()
    judges = open_judging(settings, seed=seed, cache=cache, progress=progress) if settings.eval is not None else None
    preprocessing = preprocessing_of(settings, judges)
    known = look(teacher, fingerprint, preprocessing, judges, crew=crew)
    with crew.main_first():
        found = _images(
            settings, known, seed=seed, cache=cache, progress=progress or Quiet(), note=note, crew=crew,
            only_calibrates=only_calibrates,
        )  # fmt: skip
    return _data(settings, found, known, judges, seed=seed)


def _images(
    settings: DataSettings,
    teacher: Known,
    *,
    seed: int,
    cache: Path,
    progress: Progress,
    note: Callable[[str], None],
    crew: Crew,
    only_calibrates: bool,
) -> _Found:
    asked = settings.synthesis or Synthesis()
    kind = kind_of(settings.source)
    assert kind is not None, "real data are opened elsewhere"
    if kind[0] == "images":
        return _pictures(settings, teacher, Path(kind[1]), seed=seed, cache=cache, progress=progress)
    method, reason = choose(
        asked_of(asked, settings.source), has_norms=teacher.has_norms, only_calibrates=only_calibrates
    )
    if kind[0] == "cached":
        return _reopened(settings, teacher, Path(kind[1]).expanduser(), asked, (method, reason), note=note)
    order = Order(
        method=method.first,
        settings=asked,
        classes=teacher.classes,
        preprocessing=teacher.preprocessing,
        seed=seed,
        device=crew.device,
        augmentation=settings.augment,
    )
    folder = cache / "made-images" / key_of(order, teacher.fingerprint)
    filling, restarts = best_start(
        order, teacher=teacher.network, fingerprint=teacher.fingerprint, folder=folder, method=method.name,
        progress=progress, note=note,
    )  # fmt: skip
    found = filling.fill(order.images)
    if len(filling.pool) < order.images:
        note(
            f"data.synthesis.pool_mb {asked.pool_mb} has room for {len(filling.pool)} of the {order.images} images "
            "that were to be made: raise it, or make fewer (data.synthesis.images)"
        )
    few = None if only_calibrates else too_few(len(filling.pool), classes=teacher.classes)
    if few:
        note(few)
    if found.collapsed:
        note(f"the images that were made are of no use: {found.collapsed}. Try another data.synthesis.method, or seed")
    return _Found(
        images=filling.pool.split(),
        digest=filling.pool.fingerprint,
        synthetic=Synthetic(
            source=settings.source,
            method=method.name,
            reason=reason,
            teacher=teacher.fingerprint,
            pool=filling.pool.folder,
            score=found,
            seconds=filling.seconds,
            restarts=restarts,
            evaluated_on=settings.eval,
            settings=asked,
        ),
        notes=[f"no data: {len(filling.pool)} images were made from the model alone by {method.name}", reason],
    )


def _reopened(
    settings: DataSettings,
    teacher: Known,
    folder: Path,
    asked: Synthesis,
    chosen: tuple[Method, str],
    *,
    note: Callable[[str], None],
) -> _Found:
    """The images of an earlier run. A student goes on from them by the method that made them, where it is known."""
    pool = Pool.opened(folder, teacher=teacher.fingerprint, shape=teacher.shape, note=note)
    refuse_empty(pool.manifest, folder)
    method, reason = chosen if asked.method != "auto" else maker_of(pool.manifest) or chosen
    return _Found(
        images=pool.split(),
        digest=pool.fingerprint,
        synthetic=Synthetic(
            source=settings.source,
            method=method.name,
            reason=reason,
            teacher=teacher.fingerprint,
            pool=folder,
            score=examine(pool.images(), teacher.network, teacher.preprocessing),
            seconds=0.0,
            evaluated_on=settings.eval,
            settings=asked,
        ),
        notes=[f"no data: {len(pool)} images are those of the pool {folder.name}", reason],
    )


def _pictures(
    settings: DataSettings, teacher: Known, folder: Path, *, seed: int, cache: Path, progress: Progress
) -> _Found:
    """Pictures of anything: nothing is made, neither before nor while a student learns."""
    images, digest = pictures_of(folder, shape=teacher.shape, seed=seed, cache=cache, progress=progress)
    images = images.subset(thin(images.labels(), settings.limit, seed=seed))
    few = images.read(thin(images.labels(), SCORED, seed=seed))
    return _Found(
        images=images,
        digest=digest,
        synthetic=Synthetic(
            source=settings.source,
            method="images",
            reason="pictures of another kind were given, and are used as they are",
            teacher=teacher.fingerprint,
            pool=folder,
            score=examine(few, teacher.network, teacher.preprocessing),
            seconds=0.0,
            evaluated_on=settings.eval,
            settings=settings.synthesis or Synthesis(),
        ),
        notes=[f"no data: {len(images)} pictures of another kind stand in for them"],
    )


def _data(settings: DataSettings, found: _Found, teacher: Known, judges: Data | None, *, seed: int) -> Data:
    """Divided, and labelled by the teacher: labels of the training images are there, and nothing learns from them."""
    labels = logits(teacher.network, found.images, teacher.preprocessing)[0].argmax(dim=1)
    pixels, rows = found.images.pixels, found.images.rows
    dice = torch.Generator().manual_seed(seed)
    val, train = divide(labels, VAL_SHARE, generator=dice)
    test = torch.zeros(0, dtype=torch.int64)
    if judges is None:
        few, rest = divide(labels[train], TEST_SHARE / (1 - VAL_SHARE), generator=dice)
        test, train = train[few], train[rest]
    decides = None if judges is None or judges.val is judges.test else judges.val
    share = f"{len(val)} of the images choose epochs by how often a network answers as the model does"
    judged = (
        f"{_decided(decides)}{len(judges.test)} images of {settings.eval} judge, and nothing else was done with them"
        if judges is not None
        else f"{len(test)} others judge: every accuracy is agreement with the model on images that were made from it, "
        "and how good it is on real ones is not known"
    )
    parts = [found.digest, teacher.fingerprint, judges.fingerprint if judges is not None else "", seed]
    parts += [len(decides)] if decides is not None else []
    facts = [teacher.preprocessing.facts(), list(settings.augment), asdict(found.synthetic.settings)]
    digest = hashlib.sha256(json.dumps([*parts, found.synthetic.method, facts]).encode())
    return Data(
        train=Split(pixels, labels[train], rows[train], is_labelled=False),
        val=Split(pixels, labels[val], rows[val]),
        test=Split(pixels, labels[test], rows[test]) if judges is None else judges.test,
        classes=tuple(str(number) for number in range(teacher.classes)) if judges is None else judges.classes,
        preprocessing=teacher.preprocessing,
        fingerprint=digest.hexdigest(),
        notes=(*found.notes, share, judged, *(judges.notes if judges is not None else ())),
        augment=settings.augment,
        decides=decides,
        synthetic=found.synthetic,
    )


def _decided(decides: Split | None) -> str:
    return f"{len(decides)} real images choose between variants; " if decides is not None else ""
