"""How long, as a person writes it: `90`, `90s`, `10min`, `1.5h`; and as one reads it: `1 h 05 min`."""

import re

from .errors import RecipeError

SECONDS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}


def seconds(words: str) -> float:
    """RecipeError: not a duration."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", words.strip().lower())
    if found is None or found[2] not in SECONDS:
        raise RecipeError(f"{words!r} is no duration: write a number with s, min or h, for example 90s or 10min")
    return float(found[1]) * SECONDS[found[2]]


def duration(seconds: float) -> str:
    """`3.14 s`, `1 min 15 s`, `2 h 01 min`; never with an exponent."""
    if 0 < seconds < 0.001:
        return "under 1 ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
