"""A pruned network learns again from what it was cut from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from ..targets.errors import StageError
from .artifact import Artifact, Context
from .checkpoint import Trained
from .distill.taps import outline, resolve
from .prune import Prune
from .teaching import teach


def recover(settings: Prune, module: nn.Module, artifact: Artifact, context: Context) -> tuple[Trained, dict[str, Any]]:
    """Train a pruned network in place, with the original as its teacher; returns what `teach` does.

    artifact: what came into the stage.
    """
    original = artifact.original.module
    known = {"model": original, "float": artifact.module}
    return teach(module, as_followed(settings, module, artifact, context), context, teacher=original, known=known)


def as_followed(settings: Prune, module: nn.Module, artifact: Artifact, context: Context) -> Prune:
    """The settings of this recovery: attention transfer only from the very network that was pruned, where both have
    maps of the same places, and from real images."""
    is_shared = settings.teacher is None and _has_attention_in_common(module, artifact, context)
    return settings if is_shared else replace(settings, at=0.0)


def _has_attention_in_common(module: nn.Module, artifact: Artifact, context: Context) -> bool:
    original = artifact.original.module
    if artifact.module is not original or context.data.synthetic is not None or context.data.task.takes != "images":
        return False
    example = artifact.contract.preprocessing.example(1)
    mine, theirs = outline(module, example), outline(original, example)
    try:
        pairs = resolve("@stages", student=mine, teacher=theirs, loss="at")
    except StageError:
        return False
    shapes = [{tap.name: tap.shape for tap in found} for found in (mine, theirs)]
    ends = [(shapes[0][one], shapes[1][other]) for one, other in pairs]
    return bool(ends) and all(len(one) == len(other) == 3 and one[1:] == other[1:] for one, other in ends)
