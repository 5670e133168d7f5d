"""What the report tells of a run without data: the images, and the name of what was measured on them."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import torch

from ..stages.data import Data
from ..stages.synthesis.pool import Pool
from ..stages.synthesis.sheet import contact_sheet
from ..stages.synthesis.synthetic import Synthetic
from ..targets.errors import RecipeError
from .report.schema import (
    AGREEMENT,
    StageFacts,
    SynthesisControl,
    SynthesisFacts,
    SynthesisRestart,
    SynthesisStrip,
    Variant,
)

SHOWN = 2048  # images that a contact sheet is chosen from where there is no pool


def agreement_of(data: Data) -> str | None:
    """What stands for accuracy where no real data judged, in full; None: they did."""
    made = data.synthetic
    return None if made is None or made.is_judged_on_real else f"{AGREEMENT} with the given model on {made.images}"


def judged_by(agreement: str | None, variant: Variant) -> Variant:
    """The same variant with its figure called what it is."""
    if agreement is None or variant.accuracy is None:
        return variant
    return variant.model_copy(update={"accuracy": variant.accuracy.model_copy(update={"metric": AGREEMENT})})


def renamed(stage: StageFacts, data: Data) -> StageFacts:
    """A stage only knows validation images: what it calls accuracy on images that were made is agreement."""
    if data.synthetic is None:
        return stage
    metrics = {name.replace("accuracy", AGREEMENT): value for name, value in stage.metrics.items()}
    curves = {name.replace("accuracy", AGREEMENT): values for name, values in stage.curves.items()}
    return stage.model_copy(update={"metrics": metrics, "curves": curves})


def synthesis_of(data: Data, controls: Sequence[SynthesisControl] = ()) -> SynthesisFacts | None:
    """Everything about the images; None of a run with data. controls: what they are compared with."""
    made = data.synthetic
    if made is None:
        return None
    score, pool = made.score, _pool(made)
    splits = (data.train, data.val, None if made.is_judged_on_real else data.test)
    return SynthesisFacts(
        source=made.source,
        kind=made.images,
        method=made.method,
        reason=made.reason,
        images=sum(len(split) for split in splits if split is not None),
        seconds=made.seconds,
        teacher_confidence=score.confidence,
        class_counts=list(score.class_counts),
        class_confidence=list(score.class_confidence),
        balance=score.balance,
        spread=score.spread,
        score=score.total,
        collapsed=score.collapsed,
        restarts=[SynthesisRestart(**vars(one)) for one in made.restarts],
        evaluated_on=made.evaluated_on,
        pool=pool.fingerprint if pool else None,
        controls=list(controls),
        sheet=_sheet(pool, data, classes=len(score.class_counts)),
    )


def _pool(made: Synthetic) -> Pool | None:
    """None: the images come from elsewhere, or were deleted while the run went on, as a cache may be."""
    try:
        return Pool.opened(made.pool, teacher=made.teacher)
    except RecipeError:
        return None


def _sheet(pool: Pool | None, data: Data, *, classes: int) -> list[SynthesisStrip]:
    """Of the pool, which knows how sure the teacher was; else of some validation images."""
    if pool is not None:
        images, labels, sure = pool.images(), pool.labels(), pool.confidence()
    else:
        places = torch.arange(min(len(data.val), SHOWN))
        images, labels = data.val.read(places), data.val.labels()[places]
        sure = torch.full((len(places),), torch.nan)
    strips = contact_sheet(images, labels, sure, classes=classes)
    return [
        SynthesisStrip(label=one.label, png=None if one.png is None else base64.b64encode(one.png).decode())
        for one in strips
    ]
