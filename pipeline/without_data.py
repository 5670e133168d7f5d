"""Start a run that has no data: the model is built first, and images are made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from ..stages.data import Data, open_judging
from ..stages.models import unchecked
from ..stages.progress import Progress
from ..stages.synthesis.open import open_synthetic
from ..targets.errors import RecipeError
from .plan import Plan
from .teachers import fingerprint

USUAL_CLASSES = 1000  # what libraries of networks make where nobody says
LEARNERS = ("distill", "prune")  # stages whose networks learn from the images; quantisation calibrates on them
ANY_SHAPE = (3, 224, 224)  # for networks that are told no shape when they are built


def open_made(
    plan: Plan,
    *,
    builders: Mapping[str, Callable[[], nn.Module]],
    cache: Path,
    progress: Progress,
    note: Callable[[str], None],
) -> Data:
    """The data of a plan whose `data.source` names none.

    builders: networks that are in memory, by role. RecipeError: a stage needs labels, the model has learned nothing
    yet, or something is missing that only the user knows.
    """
    stages = [entry.name for entry in plan.stages if entry.skip is None]
    source = plan.recipe.data.source
    if "train" in stages:
        raise RecipeError(f"data.source {source}: the train stage learns from labels, and there are none; leave it out")
    if not plan.recipe.model.has_weights and "model" not in builders:
        raise RecipeError(
            f"data.source {source}: all that is known of the task is in the trained model, and this one comes without "
            "weights: give model.weights, or --weights"
        )
    model = builders["model"]().eval() if "model" in builders else _model(plan, cache=cache, progress=progress)
    return open_synthetic(
        plan.recipe.data,
        teacher=model,
        fingerprint=fingerprint(model),
        seed=plan.recipe.seed,
        cache=cache,
        progress=progress,
        note=note,
        only_calibrates=not any(name in LEARNERS for name in stages),
    )


def _model(plan: Plan, *, cache: Path, progress: Progress) -> nn.Module:
    """The recipe's model before anything is known of its data but what the recipe says."""
    settings, seed = plan.recipe.data, plan.recipe.seed
    judges = open_judging(settings, seed=seed, cache=cache, progress=progress) if settings.eval is not None else None
    classes = len(judges.classes) if judges is not None else USUAL_CLASSES
    shape = judges.shape if judges is not None else settings.shape or ANY_SHAPE
    try:
        return unchecked(plan.recipe.model, classes=classes, shape=shape, seed=seed)
    except RecipeError as error:
        if judges is not None or "num_classes" in plan.recipe.model.arguments:
            raise
        raise RecipeError(
            f"{error} Without data nobody knows how many classes there are, and {USUAL_CLASSES} were tried where the "
            "network can be made for any number: say model.arguments: {num_classes: N}."
        ) from error
