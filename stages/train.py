"""Train the original model on its labels, for a model that comes without weights or wants fine-tuning."""

from typing import ClassVar, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from ..targets.profiles import Profile
from .artifact import Artifact, Context, Form
from .lesson import STRICT, Lesson, check


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Train(Lesson):
    """Ordinary training with cross-entropy; the result is the baseline that everything is compared with."""

    name: ClassVar[str] = "train"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "float"

    _checked = model_validator(mode="after")(check)

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        return "epochs is 0" if self.epochs == 0 else None

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from .improve import improve

        return improve(artifact, context, stage="train", lesson=self)
