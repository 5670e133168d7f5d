"""Train a student to answer as the original does."""

from typing import ClassVar, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from ...targets.profiles import Profile
from ..artifact import Artifact, Context, Form
from ..lesson import STRICT, Epochs, Lesson, Weight, check


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Distill(Lesson):
    """Cross-entropy with the labels and imitation of the teacher, by weight, or any losses of `compress losses`.

    Hinton et al., 2015 (arXiv:1503.02531).
    """

    epochs: Epochs = 20
    ce: Weight = 0.1
    kd: Weight = 0.9

    name: ClassVar[str] = "distill"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "float"

    _checked = model_validator(mode="after")(check)

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        if alone:
            return "the student is the model itself; the recovery after pruning distils from it"
        return "epochs is 0" if self.epochs == 0 else None

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from ..improve import improve

        return improve(artifact, context, stage="distill", lesson=self)
