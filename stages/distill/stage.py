"""Train a student to answer as the original does."""

from dataclasses import asdict
from typing import ClassVar, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from ...targets.profiles import Profile
from ..artifact import Artifact, Context, Form
from ..train import STRICT, BatchSize, Epochs, LearningRate, Optimizer, Temperature, Weight


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Distill:
    """Cross-entropy with the labels and imitation of the teacher, by weight.

    Hinton et al., 2015 (arXiv:1503.02531). ce, kd: weights of the two losses. temperature: softens both answers.
    """

    epochs: Epochs = 20
    lr: LearningRate = 2e-3
    batch_size: BatchSize = 128
    optimizer: Optimizer = "adamw"
    weight_decay: Weight = 5e-4
    ce: Weight = 0.1
    kd: Weight = 0.9
    temperature: Temperature = 4.0

    name: ClassVar[str] = "distill"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "float"

    @model_validator(mode="after")
    def _something_to_learn(self) -> "Distill":
        if self.ce == 0 and self.kd == 0:
            raise ValueError("ce and kd are both 0: nothing is learned")
        return self

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        if alone:
            return "the student is the model itself; the recovery after pruning distils from it"
        return "epochs is 0" if self.epochs == 0 else None

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from ..improve import improve
        from ..teaching import Lesson

        return improve(artifact, context, stage="distill", lesson=Lesson(**asdict(self)))
