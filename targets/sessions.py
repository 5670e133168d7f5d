"""An engine that is loaded and answers."""

from typing import Any, Protocol

from numpy.typing import NDArray

from .errors import StageError

Array = NDArray[Any]  # float32, or int64 for numbers of tokens


class Session(Protocol):
    """A call takes one batch and returns every output once it lies in host memory, in arrays of its own.

    input_shape: None where the model leaves an axis open; the first axis is the batch. input_type: as NumPy calls it.
    """

    input_name: str
    input_shape: tuple[int | None, ...]
    input_type: str

    def __call__(self, batch: Array) -> tuple[Array, ...]: ...

    def close(self) -> None: ...


def input_type(samples: Array) -> str:
    """What a model takes them as: whole numbers are tokens, anything else is float32."""
    return "int64" if samples.dtype.kind in "iu" else "float32"


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
    problem = _type_problem(session, batch)
    if problem:
        raise StageError(problem)


def _type_problem(session: Session, batch: Array) -> str | None:
    if session.input_type == batch.dtype.name:
        return None
    return (
        f"the model takes {session.input_type} at its input {session.input_name!r} and was given {batch.dtype.name}: "
        "numbers of tokens are int64, anything else is float32"
    )


def _words(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
