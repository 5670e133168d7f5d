"""What a session answers for many samples, refused where it cannot be right."""

from collections.abc import Callable

import numpy as np

from .errors import StageError
from .sessions import Array, Session

BATCH = 64  # where the model leaves its batch axis open


def first_answer(session: Session, sample: Array, *, shape: tuple[int, ...] | None) -> Array:
    """The first output for one sample. StageError: not finite, or not in the shape of the other engines."""
    answer = _checked(session(sample), count=len(sample))
    if shape is not None and answer.shape != shape:
        raise StageError(
            f"answers in the shape {answer.shape}, the engines before it in {shape}: "
            "export all variants from one model, with the same outputs in the same order"
        )
    return answer


def answer_split(session: Session, images: Array, *, alive: Callable[[], None]) -> Array:
    """The first output for all images or texts, (n, ...). alive: called before each batch."""
    size = session.input_shape[0] or BATCH
    parts = []
    for start in range(0, len(images), size):
        alive()
        batch = np.ascontiguousarray(images[start : start + size])
        parts.append(_checked(session(batch), count=len(batch)))
    return np.concatenate(parts)


def _checked(outputs: tuple[Array, ...], *, count: int) -> Array:
    answer = outputs[0]
    if answer.ndim == 0 or len(answer) != count:
        raise StageError(f"answers in the shape {answer.shape} for {count} samples: the first axis is not the batch")
    if not np.isfinite(answer).all():
        raise StageError("answers with NaN or infinity: compare the exported file with the model it comes from")
    return answer
