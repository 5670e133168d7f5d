"""What may stand in report.json: nothing that JSON does not know, and nothing that nobody has named."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _finite_or_none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# JSON has no NaN: where one can happen (a loss that overflowed) it is stored as null.
MaybeFinite = Annotated[float | None, BeforeValidator(_finite_or_none)]


def _plain(value: Any) -> Any:
    """The same value as JSON will give it back: NumPy's as Python's, a tuple as a list, a path as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if callable(to_list := getattr(value, "tolist", None)):
        return _plain(to_list())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return _finite_or_none(value)
    return str(value)


Values = Annotated[dict[str, Any], BeforeValidator(_plain)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
