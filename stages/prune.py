"""Remove the channels that a model will miss least, then let it recover."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ..targets.profiles import Profile
from .artifact import Artifact, Context, Form
from .distill.ramps import Ramp
from .distill.settings import Loss
from .lesson import STRICT, LearningRate, Lesson, Weight, check

USUAL_RATIO = 0.3
MOST_TRIALS = 8  # networks that are pruned, exported and measured as a whole on the way to a budget
ACCURACY = "accuracy_drop"  # the limit that pruning can go as far as
BISECTIONS = 5  # networks that are pruned and recovered for an epoch on the way to that
TOWARDS = ("latency_ms", "speedup", "size_mb", "memory_mb")  # limits that pruning can work towards


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Prune(Lesson):
    """Structured pruning over dependency groups (DepGraph, Fang et al., 2023, arXiv:2301.12900), then recovery.

    ratio: share of all channels that go, chosen over the whole network by importance; none: as many as the budget asks
    for by a latency, a speed-up, a size or a memory (measured on the target, candidate by candidate); 0.3 where it
    names none of these. until: accuracy_drop prunes as far as that limit of the budget allows, on validation images
    after an epoch of recovery, whatever else the budget says. importance: magnitude (of the weights), bn-scale (of the
    batch norms), taylor (first order, on training images) or hessian (second order); auto is taylor towards a budget
    and magnitude for a ratio. exclude: modules whose channels stay. steps: towards a budget, prune and recover by
    turns, each with its part of the epochs. blocks: towards a budget, whole residual blocks may go where that is
    cheaper. at: weight of attention transfer as the recovery begins, beside ce and kd, where the teacher is the network
    that was pruned and both have feature maps; it fades to nothing by the end. The rest is the recovery, whose
    teacher is the original.
    """

    ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    importance: Literal["auto", "magnitude", "taylor", "bn-scale", "hessian"] = "auto"
    until: Literal["budget", "accuracy_drop"] = "budget"
    exclude: tuple[str, ...] = ()
    steps: Annotated[int, Field(ge=1, le=20)] = 1
    blocks: bool = True
    lr: LearningRate = 1e-3
    ce: Weight = 0.1
    kd: Weight = 0.9
    at: Weight = 0.0

    name: ClassVar[str] = "prune"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "float"

    _checked = model_validator(mode="after")(check)

    def losses(self) -> Mapping[str, Loss]:
        """Every loss that counts, by name."""
        found = super().losses()
        if not self.at or self.loss is not None:
            return found
        return {**found, "at": Loss(weight=self.at, ramp=Ramp(epochs=self.epochs, start=1.0, end=0.0))}

    def problem(self) -> str | None:
        """What is wrong with the settings, in words."""
        if self.steps > 1 and self.ratio is not None:
            return "steps prunes towards a budget step by step; leave ratio out and set a limit of the budget"
        if self.until == "accuracy_drop" and (self.ratio is not None or self.steps > 1):
            return "until: accuracy_drop finds the ratio itself, in one step; leave ratio and steps out"
        return super().problem()

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        return "ratio is 0" if self.ratio == 0 else None

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from .pruning import prune

        return prune(self, artifact, context)
