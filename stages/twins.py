"""Engines without a file of their own: a float file that the runtime computes in a narrower precision."""

from ..targets.profiles import Profile
from ..targets.trt import is_strongly_typed

BFLOAT = "bf16"
HALF = "fp16"
WORDS = {BFLOAT: "bfloat16", HALF: "float16"}


def variant_of(engine: str) -> str:
    """The exported variant that an engine runs."""
    return next((engine.removesuffix(f"-{kind}") for kind in WORDS if engine.endswith(f"-{kind}")), engine)


def twin_precision(engine: str) -> str:
    """What a twin computes in, by its name. KeyError: it is none."""
    return next(kind for kind in WORDS if engine.endswith(f"-{kind}"))


def takes_half_by_flag(profile: Profile) -> bool:
    """Whether TensorRT computes a file of float32 in float16 where it is told to; else the file's types say so."""
    return "int8" in profile.precisions and not is_strongly_typed(profile.runtime_version or "")


def computes_in_half(precision: str, profile: Profile) -> bool:
    """Whether the file's types are float16; behind INT8 too, where TensorRT goes by types alone."""
    if precision == "int8" and profile.runtime == "tensorrt" and "fp16" in profile.precisions:
        return is_strongly_typed(profile.runtime_version or "")
    return precision == "fp16"
