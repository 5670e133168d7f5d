"""Engines without a file of their own: a float file that the runtime computes in a narrower precision."""

BFLOAT = "bf16"
HALF = "fp16"
WORDS = {BFLOAT: "bfloat16", HALF: "float16"}


def variant_of(engine: str) -> str:
    """The exported variant that an engine runs."""
    return next((engine.removesuffix(f"-{kind}") for kind in WORDS if engine.endswith(f"-{kind}")), engine)


def twin_precision(engine: str) -> str:
    """What a twin computes in, by its name. KeyError: it is none."""
    return next(kind for kind in WORDS if engine.endswith(f"-{kind}"))
