"""Remove the channels that a model will miss least, then let it recover."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ..targets.profiles import Profile
from .artifact import Artifact, Context, Form
from .lesson import STRICT, LearningRate, Lesson, Weight, check


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Prune(Lesson):
    """Structured pruning over dependency groups (DepGraph, Fang et al., 2023, arXiv:2301.12900), then recovery.

    ratio: share of all channels that go, chosen over the whole network by importance. importance: magnitude (group
    norm of the weights) or taylor (weight times gradient on training images, Molchanov et al., 2019,
    arXiv:1906.10771). exclude: modules whose channels stay. The rest is the recovery, whose teacher is the original.
    """

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.3
    importance: Literal["magnitude", "taylor"] = "magnitude"
    exclude: tuple[str, ...] = ()
    lr: LearningRate = 1e-3
    ce: Weight = 0.1
    kd: Weight = 0.9

    name: ClassVar[str] = "prune"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "float"

    _checked = model_validator(mode="after")(check)

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        return "ratio is 0" if self.ratio == 0 else None

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from .pruning import prune

        return prune(self, artifact, context)
