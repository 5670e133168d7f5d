"""Train the original model on its labels, for a model that comes without weights or wants fine-tuning."""

from dataclasses import asdict
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ..targets.profiles import Profile
from .artifact import Artifact, Context, Form

STRICT = ConfigDict(extra="forbid")
Epochs = Annotated[int, Field(ge=0, le=10_000)]
BatchSize = Annotated[int, Field(ge=2)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Weight = Annotated[float, Field(ge=0)]
Temperature = Annotated[float, Field(gt=0)]
Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Train:
    """Ordinary training with cross-entropy; the result is the baseline that everything is compared with."""

    epochs: Epochs = 10
    lr: LearningRate = 2e-3
    batch_size: BatchSize = 128
    optimizer: Optimizer = "adamw"
    weight_decay: Weight = 5e-4

    name: ClassVar[str] = "train"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "float"

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        return "epochs is 0" if self.epochs == 0 else None

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from .improve import improve
        from .teaching import Lesson

        return improve(artifact, context, stage="train", lesson=Lesson(**asdict(self), ce=1, kd=0, temperature=1))
