"""Start a run that has no data: the model is built first, and images are made from it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..stages.crew import Crew
from ..stages.data import Data, open_judging
from ..stages.datasets.folders import list_images
from ..stages.models import unchecked
from ..stages.progress import Progress, Quiet
from ..stages.pruning import count_macs
from ..stages.synthesis.generators import Generator, width_for
from ..stages.synthesis.known import Known, look, preprocessing_of
from ..stages.synthesis.manifest import Manifest, maker_of, refuse_another, refuse_empty
from ..stages.synthesis.methods import METHODS, Method, asked_of, choose
from ..stages.synthesis.open import open_synthetic
from ..stages.synthesis.settings import Synthesis, kind_of
from ..stages.synthesis.work import LEARNING, THROUGH, Costs, too_few, tries_of, updates_of, work_of
from ..targets.durations import duration
from ..targets.errors import RecipeError
from .plan import Plan
from .teachers import fingerprint

USUAL_CLASSES = 1000  # what libraries of networks make where nobody says
# of the trial that an estimate of time rests on: images, of which there are fewer where they are large, and seconds
TIMED_BATCH, TIMED_PIXELS, TIMED_SECONDS = 64, 2**18, 0.5
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
    _refuse_hopeless(plan, has_model="model" in builders)
    model = builders["model"]().eval() if "model" in builders else _model(plan, cache=cache, progress=progress)
    return open_synthetic(
        plan.recipe.data,
        teacher=model,
        fingerprint=fingerprint(model),
        seed=plan.recipe.seed,
        cache=cache,
        progress=progress,
        note=note,
        only_calibrates=_only_calibrates(plan),
    )


def time_words(plan: Plan) -> str:
    """How long making images and learning from them will take here, for somebody who asks before starting.

    An estimate, from how long a batch takes here forwards and back through each network. RecipeError: as `open_made`.
    """
    _refuse_hopeless(plan, has_model=False)
    settings = plan.recipe.data
    made = settings.synthesis or Synthesis()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        judges = None
        if settings.eval is not None:
            judges = open_judging(settings, seed=plan.recipe.seed, cache=cache, progress=Quiet())
        model = _model(plan, cache=cache, progress=Quiet())
        known = look(
            model, fingerprint(model), preprocessing_of(settings, judges), judges, crew=Crew(device=torch.device("cpu"))
        )
    way = _way(plan, made, known)
    seconds = _work_to_do(plan, made, way, _costs(plan, made, known, way.method))
    few = None if _only_calibrates(plan) else too_few(way.images, classes=known.classes)
    told = [f"{way.words}: roughly {duration(max(1.0, seconds))} here", way.reason, *([few] if few else [])]
    return ". ".join(told)


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How a run comes by its images. images: that there are before the first stage. there: they need not be made."""

    method: Method
    reason: str
    words: str
    images: int
    there: bool


def _way(plan: Plan, made: Synthesis, known: Known) -> _Way:
    """RecipeError: the pool, or the folder of pictures, is none that could be used."""
    settings = plan.recipe.data
    kind = kind_of(settings.source)
    assert kind is not None, "only runs without data of the task are asked about"
    if kind[0] == "images":
        count = len(list_images(Path(kind[1]).expanduser(), source=settings.source))
        count = min(count, settings.limit or count)
        reason, words = "They are used as they are", f"what learns from {count} pictures of another kind"
        return _Way(method=METHODS["noise"], reason=reason, words=words, images=count, there=True)
    method, reason = choose(
        asked_of(made, settings.source), has_norms=known.has_norms, only_calibrates=_only_calibrates(plan)
    )
    if kind[0] != "cached":
        words = f"images by {method.name} and what learns from them"
        return _Way(method=method, reason=reason, words=words, images=made.images or method.first.images, there=False)
    folder = Path(kind[1]).expanduser()
    manifest = Manifest.opened(folder)
    refuse_another(manifest, folder, teacher=known.fingerprint, shape=known.shape)
    refuse_empty(manifest, folder)
    if made.method == "auto":
        method, reason = maker_of(manifest) or (method, reason)
    words = f"what learns from the {manifest.count} images of the pool"
    return _Way(method=method, reason=reason, words=words, images=manifest.count, there=True)


def _work_to_do(plan: Plan, made: Synthesis, way: _Way, costs: Costs) -> float:
    """Making the images, every training on them, and the controls, in the unit of the costs."""

    work = partial(work_of, settings=made, costs=costs)
    total = 0.0 if way.there else work(way.method, batch_size=1).pool
    for entry in (entry for entry in plan.stages if entry.skip is None and "epochs" in entry.settings):
        epochs, batch_size = entry.settings["epochs"], entry.settings["batch_size"]
        # quantisation works on the images that there are, and so does a method that makes no more
        method = way.method if entry.name in LEARNERS else METHODS["noise"]
        starts, tried = tries_of(method, made, epochs=epochs)
        played = epochs + (starts - 1) * tried
        total += played * work(method, batch_size=batch_size, there=way.images).epoch
        if entry.name == "distill":
            steps = epochs * updates_of(way.method, made, images=way.images, batch_size=batch_size)
            total += len(plan.recipe.data.controls) * steps * batch_size * (costs.teacher + LEARNING * costs.student)
    return total


def _costs(plan: Plan, made: Synthesis, known: Known, method: Method) -> Costs:
    """Seconds of an image forwards, of a batch's."""
    example = known.preprocessing.example(1)
    batch = max(2, min(TIMED_BATCH, TIMED_PIXELS // example[0, 0].numel()))
    images = example.expand(batch, *example.shape[1:]).contiguous()
    teacher = _seconds(known.network, images.clone().requires_grad_()) / THROUGH
    student = teacher
    if plan.recipe.student is not None:
        learner = unchecked(plan.recipe.student, classes=known.classes, shape=known.shape, seed=plan.recipe.seed)
        student = _seconds(learner.train(), images) / LEARNING
    if method.play in ("pixels", "noise"):
        return Costs(teacher=teacher / batch, student=student / batch, generator=0.0)
    latent = made.latent or method.latent
    width = made.width or width_for(count_macs(known.network, example), known.shape)
    generator = Generator(known.shape, latent=latent, width=width)
    making = _seconds(generator, torch.zeros(batch, latent)) / LEARNING
    return Costs(teacher=teacher / batch, student=student / batch, generator=making / batch)


def _seconds(network: nn.Module, given: Tensor) -> float:
    """Of one batch, forwards and back."""
    began, passes = time.perf_counter(), 0
    while passes < 2 or time.perf_counter() - began < TIMED_SECONDS:
        if passes == 1:
            began = time.perf_counter()  # the first one warmed up
        network(given).sum().backward()
        passes += 1
    return (time.perf_counter() - began) / (passes - 1)


def _refuse_hopeless(plan: Plan, *, has_model: bool) -> None:
    source = plan.recipe.data.source
    if any(entry.name == "train" and entry.skip is None for entry in plan.stages):
        raise RecipeError(f"data.source {source}: the train stage learns from labels, and there are none; leave it out")
    if not plan.recipe.model.has_weights and not has_model:
        raise RecipeError(
            f"data.source {source}: all that is known of the task is in the trained model, and this one comes without "
            "weights: give model.weights, or --weights"
        )
    if plan.recipe.data.controls and not any(one.name == "distill" and one.skip is None for one in plan.stages):
        raise RecipeError(
            "data.controls teach the student of the distill stage on other images, and that stage does not run here: "
            "name a student, or leave data.controls out"
        )


def _only_calibrates(plan: Plan) -> bool:
    """No student learns from the images."""
    return not any(entry.name in LEARNERS and entry.skip is None for entry in plan.stages)


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
