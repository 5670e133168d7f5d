"""Quantise to INT8: calibrate first, then train with the rounding in place."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ..targets.profiles import Profile
from .artifact import Artifact, Context, Form
from .lesson import STRICT, Epochs, LearningRate, Lesson, Temperature, Weight, check


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Quantize(Lesson):
    """Post-training calibration, then quantisation-aware training with the float twin as teacher.

    The grid and the places of rounding come from the profile. mode: auto trains only where calibration alone does not
    surely meet the budget of accuracy; ptq never trains, qat always. fallback: where the budget is missed in the end,
    layers go back to float, those first that do most damage for each millisecond that INT8 saves there, until it is
    met. epochs: of training; 0 calibrates only. ce, kd: by default the twin's answers alone (Zhao et al., 2024,
    arXiv:2403.11106), so labels are not needed. calibration: training images that the ranges are observed on. exclude:
    modules that stay in float.
    """

    mode: Literal["auto", "ptq", "qat"] = "auto"
    fallback: bool = True

    epochs: Epochs = 2
    lr: LearningRate = 1e-4
    weight_decay: Weight = 0.0
    ce: Weight = 0.0
    kd: Weight = 1.0
    temperature: Temperature = 1.0
    calibration: Annotated[int, Field(ge=1)] = 512
    exclude: tuple[str, ...] = ()

    name: ClassVar[str] = "quantize"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "quantized"

    _checked = model_validator(mode="after")(check)

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
