"""Whether calibration is enough, whether training is, and which layers go back to float where neither is."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...targets.durations import duration
from ..artifact import Artifact, Context
from ..crew import crew as meet
from ..quantize import Quantize
from .fallback import fall_back
from .posttraining import Calibrated
from .prepare import float_again
from .scheme import Scheme
from .sensitivity import Ranking, Suspect, rank
from .standing import Bar, Standing

TIMED_STEPS = 3  # of training, to tell what an epoch would have taken; the first is not counted


def why_not_to_train(settings: Quantize, standing: Standing | None) -> str | None:
    """None: train. standing: of the network that was calibrated; None: nothing is asked of its accuracy."""
    if not settings.epochs:
        return "epochs is 0"
    if settings.mode == "ptq":
        return "mode is ptq"
    asks = settings.ranges == "learned" or settings.phases != "none"
    if settings.mode == "auto" and not asks and standing is not None and standing.surely:
        return f"calibration alone meets the budget: {standing.words()}"
    return None


def told_of_training(
    why: str,
    module: nn.Module,
    teacher: nn.Module,
    batches: list[Tensor],
    settings: Quantize,
    context: Context,
) -> dict[str, Any]:
    """What the record says of a training that was left out: why, and about how many seconds that saved."""
    if not settings.epochs or context.data.train is None:
        return {"training_skipped": why}
    seconds = _seconds_of_a_sample(module, teacher, batches[0]) * len(context.data.train) * settings.epochs
    context.note(f"quantize: not trained, {why}; about {duration(seconds)} saved")
    return {"training_skipped": why, "training_seconds_saved": seconds}


def _seconds_of_a_sample(module: nn.Module, teacher: nn.Module, images: Tensor) -> float:
    """Of one training pass with its teacher's, the fastest of a few; the networks are left alone."""
    device = meet().device
    learner, knows, images = copy.deepcopy(module).to(device), copy.deepcopy(teacher).to(device), images.to(device)
    best = math.inf
    for step in range(TIMED_STEPS):
        began = time.perf_counter()
        with torch.no_grad():
            wanted = knows(images)
        error = (learner(images) - wanted).square().mean()
        error.backward()
        float(error.detach())  # waits for the device
        if step:
            best = min(best, time.perf_counter() - began)
    return best / len(images)


def give_back(
    candidates: Sequence[nn.Module],
    calibrated: Calibrated,
    batches: list[Tensor],
    *,
    asked: Bar,
    artifact: Artifact,
    context: Context,
) -> tuple[nn.Module | None, Scheme, dict[str, Any]]:
    """The network with as many layers in float as the budget takes, its scheme, and what the record says of it.

    candidates: rounded networks, the best first; the first whose float twin meets the budget is taken.
    None: there is none, or no number of layers does.
    """
    standings = []
    for prepared in candidates:
        twin = float_again(prepared, artifact.module)
        standings.append(asked.judge(twin, context))
        if standings[-1].meets:
            break
    else:
        why = f"in float, too, the network misses the budget of accuracy: {standings[0].words()}"
        return None, calibrated.scheme, {"met": False, "sentence": why, "float_layers": [], "ranking": []}
    scheme, are_classes = calibrated.scheme, context.data.task.has_one_class_each
    # every process must give back the same layers, and times differ
    ranked = rank(prepared, twin, scheme, batches, profile=context.profile, are_classes=are_classes)
    found = meet().told(_plain(ranked))
    ranking = Ranking(suspects=tuple(Suspect(**one) for one in found["suspects"]), untimed=found["untimed"])
    result = fall_back(
        prepared,
        artifact.module,
        scheme,
        batches,
        ranking=ranking,
        estimator=calibrated.estimator,
        judge=lambda candidate: asked.judge(candidate, context),
    )
    context.note(f"quantize: {result.sentence()}")
    return result.module if result.layers else None, result.scheme, result.facts()


def _plain(ranking: Ranking) -> dict[str, Any]:
    return {"suspects": [suspect.facts() for suspect in ranking.suspects], "untimed": ranking.untimed}
