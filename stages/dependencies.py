"""torch-pruning's dependency graph where it misreads a network: an error, in bounded memory and time."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

# what torch-pruning (1.6) raises on networks of torchvision and timm that it misreads
TORCH_PRUNING_FAILS = (
    RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError,
)  # fmt: skip
MOST_CHANNELS = 1_000_000  # of one layer; a flattened 512 x 7 x 7 has 25 088
PATIENCE_SECONDS = 90.0  # a network of 400 layers takes 20 s
NOISE = ("Unwrapped parameters detected", "Maximum recursive depth reached")


class TooLongError(RuntimeError):
    """The graph was not followed to its end; another attempt would take as long."""


@contextlib.contextmanager
def followed() -> Iterator[None]:
    """While torch-pruning follows a network.

    Reshapes that it misreads, such as the windows of a Swin transformer, multiply the channels that it believes to
    belong together, without end: at MOST_CHANNELS there is an OverflowError. Channels that are sliced and joined
    again, such as ReXNet's shortcuts, multiply the ways that it goes: after PATIENCE_SECONDS there is a TooLongError.
    Parameters of no layer, such as positions, are pruned in their last dimension, which is right and not worth a
    warning.
    """
    from torch_pruning.dependency import group, index_mapping

    flatten: Any = index_mapping._FlattenIndexMapping
    groups: Any = group.Group
    plain, searched = flatten.__call__, groups.has_pruning_op
    flatten.__call__ = _bounded(plain)
    groups.has_pruning_op = _patient(searched, until=time.monotonic() + PATIENCE_SECONDS)
    try:
        with warnings.catch_warnings():
            for text in NOISE:
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        flatten.__call__, groups.has_pruning_op = plain, searched


def _bounded(mapping: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def bounded(self: Any, places: Any) -> Any:
        if not self.reverse and len(places) * self._stride > MOST_CHANNELS:
            raise OverflowError(f"a reshape would join {len(places) * self._stride} channels")
        return mapping(self, places)

    return bounded


def _patient(searched: Callable[..., bool], *, until: float) -> Callable[..., bool]:
    def patient(self: Any, dependency: Any, places: Any) -> bool:
        if time.monotonic() > until:
            raise TooLongError(f"which channels go together was not found out in {PATIENCE_SECONDS:.0f} s")
        return searched(self, dependency, places)

    return patient
