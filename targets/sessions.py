"""An engine that is loaded and answers."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import StageError

Array = NDArray[np.float32]


class Session(Protocol):
    """A call takes one batch and returns every output once it lies in host memory, in arrays of its own.

    input_shape: None where the model leaves an axis open; the first axis is the batch.
    """

    input_name: str
    input_shape: tuple[int | None, ...]

    def __call__(self, batch: Array) -> tuple[Array, ...]: ...

    def close(self) -> None: ...


def check_input(session: Session, batch: Array) -> None:
    """StageError where this batch does not fit the model, before the runtime says so in its own words."""
    expected, seen = session.input_shape, batch.shape
    fits = len(expected) == len(seen) and all(want in (None, got) for want, got in zip(expected, seen, strict=True))
    if not fits:
        raise StageError(
            f"the model takes {_words(expected)} at its input {session.input_name!r} and was given "
            f"{_words(seen)}: give samples of that size, or export the model for this one "
            "(batch 1 or an open batch axis)"
        )


def _words(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
