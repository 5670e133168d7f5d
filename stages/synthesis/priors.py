"""The table of what made images are held to: which name means which class. No torch here until one is made."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...targets.errors import RecipeError, StageError, did_you_mean
from ..distill.losses import construct, options_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..distill.nouns import Batch, Objective, Teacher
    from ..distill.settings import Loss
    from .terms import Prior

PRIORS: dict[str, str] = {
    "onehot": "terms:OneHot",
    "balance": "terms:Balance",
    "activation": "terms:Activation",
    "disagreement": "terms:Disagreement",
    "bnstats": "statistics:BatchNormStatistics",
    "tv": "pictures:TotalVariation",
    "norm": "pictures:Norm",
    "contrast": "contrast:Contrast",
}  # file:class, files being modules of this folder
NORMS = "@norms"
TEACHER = "teacher"  # what the one that images are made from is called among teachers


def prior_class(name: str) -> type[Prior]:
    """The class behind a name. RecipeError: there is none."""
    if name not in PRIORS:
        raise RecipeError(f"no prior of made images is called {name!r}{did_you_mean(name, PRIORS)}")
    file, _, cls = PRIORS[name].partition(":")
    found: type[Prior] = getattr(import_module(f".{file}", __package__), cls)
    return found


def prior_defaults(name: str) -> dict[str, Any]:
    """The options of a prior with their defaults."""
    return options_of(prior_class(name))


def make_prior(name: str, options: Mapping[str, Any]) -> Prior:
    """A prior with its options. RecipeError: it has no such option, or the value is not one it takes."""
    made = construct(prior_class(name), options, called=f"the prior {name}")
    from .terms import Prior

    assert isinstance(made, Prior), "the table names priors"
    return made


def wire_priors(
    priors: Mapping[str, Loss],
    *,
    learner: nn.Module,
    teachers: Mapping[str, Teacher],
    probe: Batch,
    seed: int = 0,
) -> Objective:
    """What a generator plays: these priors, wired to the student and the teachers as losses are.

    teachers: such as let gradients through, and not those that the student learns from, since each has taps of its own.
    probe: a few made images. StageError: a prior needs what these networks do not have.
    """
    from ..distill.wiring import wire
    from .known import has_norms

    are_there = all(one.module is not None and has_norms(one.module) for one in teachers.values())
    for name, loss in priors.items():
        if prior_class(name).place == NORMS and loss.taps is None and not are_there:
            raise StageError(
                f"{name} looks at the statistics that the teacher's batch norms keep of their data, and there are "
                "none. Take the method dafl or dfq: they need none"
            )
    return wire(priors, learner=learner, teachers=teachers, probe=probe, seed=seed, made_by=make_prior)


def cost_of(
    objective: Objective, batch: Batch, *, teacher: Teacher, student: nn.Module | None, network: nn.Module, epoch: float
) -> Tensor:
    """The priors' weighted sum for a batch, with the gradient of its pixels.

    teacher: called as in `wire_priors`, and lets gradients through. student: against whom; None: from the teacher
    alone. network: the teacher's own. epoch: of the student's training, for ramps.
    """
    from ..distill.nouns import Step
    from ..distill.watching import answer

    said = teacher.see(batch)
    total: Tensor
    total, _ = objective(
        Step(
            batch=batch,
            student=said if student is None else answer(student, batch.x, objective.taps()),
            teachers={TEACHER: said},
            progress=0.0,
            epoch=epoch,
            learner=network if student is None else student,
            models={TEACHER: network},
        )
    )
    return total


def remember(objective: Objective) -> None:
    """Tell every prior that the batch which it saw last is kept."""
    from .terms import Prior

    for part in objective.parts:
        if isinstance(part.term, Prior):
            part.term.remember()
