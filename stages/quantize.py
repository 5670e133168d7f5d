"""Quantise to INT8: calibrate first, then train with the rounding in place."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ..targets.profiles import Profile
from .artifact import Artifact, Context, Form
from .train import STRICT, BatchSize, Epochs, LearningRate, Optimizer, Temperature, Weight


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Quantize:
    """Post-training calibration, then quantisation-aware training with the float twin as teacher.

    The grid and the places of rounding come from the profile. epochs: of training; 0 calibrates only. ce, kd: by
    default the twin's answers alone (Zhao et al., 2024, arXiv:2403.11106), so labels are not needed. calibration:
    training images that the ranges are observed on. exclude: modules that stay in float.
    """

    epochs: Epochs = 2
    lr: LearningRate = 1e-4
    batch_size: BatchSize = 128
    optimizer: Optimizer = "adamw"
    weight_decay: Weight = 0.0
    ce: Weight = 0.0
    kd: Weight = 1.0
    temperature: Temperature = 1.0
    calibration: Annotated[int, Field(ge=1)] = 512
    exclude: tuple[str, ...] = ()

    name: ClassVar[str] = "quantize"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "quantized"

    @model_validator(mode="after")
    def _something_to_learn(self) -> "Quantize":
        if self.epochs and self.ce == 0 and self.kd == 0:
            raise ValueError("ce and kd are both 0: nothing is learned; for calibration alone set epochs to 0")
        return self

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        if "int8" not in profile.precisions:
            return (
                f"{profile.board} has no INT8 units (precisions: {', '.join(profile.precisions)}); "
                f"it gets {profile.precisions[-1].upper()} instead"
            )
        return None

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from .quantization.qat import quantize

        return quantize(self, artifact, context)
