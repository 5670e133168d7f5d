"""Quantise to INT8: calibrate first, then train with the rounding in place."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ..targets.profiles import Profile
from .artifact import Artifact, Context, Form
from .lesson import STRICT, Epochs, LearningRate, Lesson, Temperature, Weight, check

FEWEST_OF_PHASES = 3  # epochs


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Quantize(Lesson):
    """Post-training calibration, then quantisation-aware training with the float twin as teacher.

    The grid and the places of rounding come from the profile. mode: auto trains only where calibration alone does not
    surely meet the budget of accuracy; ptq never trains, qat always. fallback: where the budget is missed in the end,
    layers go back to float, those first that do most damage for each millisecond that INT8 saves there, until it is
    met. epochs: of training; 0 calibrates only. ce, kd: by default the twin's answers alone (Zhao et al., 2024,
    arXiv:2403.11106), so labels are not needed. calibration: training images that the ranges are observed on. exclude:
    modules that stay in float. ranges: learned makes scales parameters of the training (LSQ). trains: ranges lets
    nothing else learn. phases: qkd trains by itself first, then together with its tutor, then from it. Whoever asks for
    learned ranges or for phases asks for training: auto leaves it out for nobody's budget then.
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
    ranges: Literal["observed", "learned"] = "observed"
    trains: Literal["all", "ranges"] = "all"
    phases: Literal["none", "qkd"] = "none"

    name: ClassVar[str] = "quantize"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "quantized"

    _checked = model_validator(mode="after")(check)

    def problem(self) -> str | None:
        if self.trains == "ranges" and self.ranges != "learned":
            return "trains: ranges has nothing to train where ranges are observed; set ranges to learned"
        if self.phases == "qkd":
            if self.epochs < FEWEST_OF_PHASES:
                return f"phases: qkd has three phases of an epoch at least, and epochs is {self.epochs}; raise it"
            if self.loss is not None or self.kd == 0:
                return "phases: qkd learns by ce and kd; leave out loss, and give kd a weight"
        return super().problem()

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
