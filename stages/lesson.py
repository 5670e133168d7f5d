"""What every stage that trains lets a recipe set. No torch here."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field
from pydantic.dataclasses import dataclass

from .distill.settings import Attack, Loss, Losses, ce_and_kd
from .distill.teacher_settings import Cache, Teachers, Views, Weigh

CLIP_NORM = 5.0  # a rare bad batch must not undo an epoch; ordinary gradients stay below
STRICT = ConfigDict(extra="forbid")
Epochs = Annotated[int, Field(ge=0, le=10_000)]
BatchSize = Annotated[int, Field(ge=2)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Weight = Annotated[float, Field(ge=0)]
Clip = Annotated[float, Field(gt=0)] | None
Temperature = Annotated[float, Field(gt=0, validation_alias=AliasChoices("temperature", "T"))]
Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Lesson:
    """How one training goes.

    ce, kd: weights of the labels' and of the teacher's loss. temperature: softens both answers. loss: any losses by
    name, in place of those two. attack: train on images that were changed to mislead the student.
    accumulate: batches whose gradients are averaged for one update: as if batch_size were so many times larger, in the
    memory of one. balance: `gradients` makes the weights ratios of pull: each epoch they are rescaled so that the norm
    of each loss's gradient stands in the ratio of its weight. clip_norm: a gradient that is longer is shortened to it;
    null: never. compile: let torch.compile speed up the student's passes.
    teacher: who is imitated, one or several, in place of the recipe's. weigh: how much each counts, alike, by
    confidence (right and sure), by entropy (sure), or learned. check_teacher: refuse one that is worse than its student
    or has its classes in another order. cache: keep the teachers' answers on disk, auto, off, or up to so many GB.
    views: vary each image in so many ways and no more, so that the answers last; none: anew in every epoch.
    """

    epochs: Epochs = 10
    lr: LearningRate = 2e-3
    batch_size: BatchSize = 128
    optimizer: Optimizer = "adamw"
    weight_decay: Weight = 5e-4
    ce: Weight = 1.0
    kd: Weight = 0.0
    temperature: Temperature = 4.0
    loss: Losses | None = None
    attack: Attack | None = None
    accumulate: Annotated[int, Field(ge=1)] = 1
    balance: Literal["none", "gradients"] = "none"
    clip_norm: Clip = CLIP_NORM
    compile: bool = False
    teacher: Teachers | None = None
    weigh: Weigh = "alike"
    check_teacher: bool = True
    cache: Cache = "auto"
    views: Views | None = None

    def losses(self) -> Mapping[str, Loss]:
        """Every loss that counts, by name."""
        named = self.loss or ce_and_kd(ce=self.ce, kd=self.kd, temperature=self.temperature)
        stacking = {"stacking": Loss()} if self.weigh == "learned" else {}
        return {name: loss for name, loss in (stacking | dict(named)).items() if loss.weight != 0}

    def problem(self) -> str | None:
        """What is wrong with the losses, in words."""
        from .distill.losses import check_name, make

        if self.epochs and not self.losses():
            what = "ce and kd are both 0" if self.loss is None else "every loss weighs 0"
            return f"{what}: nothing is learned; to train nothing at all set epochs to 0"
        for name, loss in (self.loss or {}).items():
            check_name(name)
            if loss.options:
                make(name, loss.options)  # torch, but only for a recipe that sets a method's own options
        return None


def check(lesson: Any) -> Any:
    """A validator for stages: their losses exist and take these options."""
    from ..targets.errors import RecipeError

    try:
        problem = lesson.problem()
    except RecipeError as error:
        problem = str(error)
    if problem:
        raise ValueError(problem)
    return lesson
