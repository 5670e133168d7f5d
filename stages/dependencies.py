"""torch-pruning's dependency graph where it misreads a network: an error, in bounded memory and time."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

# what torch-pruning (1.6) raises on networks of torchvision and timm that it misreads
TORCH_PRUNING_FAILS = (
    RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError,
)  # fmt: skip
MOST_CHANNELS = 1_000_000  # of one layer; a flattened 512 x 7 x 7 has 25 088
MOST_MEMBERS = 10_000  # of a group; a ViT-B of 12 layers has 504, and no count depends on how fast a machine is
NOISE = ("Unwrapped parameters detected", "Maximum recursive depth reached")


class MisreadError(RuntimeError):
    """The graph goes on without end; another attempt would, too."""


@contextlib.contextmanager
def followed() -> Iterator[None]:
    """While torch-pruning follows a network.

    Reshapes that it misreads, such as the windows of a Swin transformer, multiply the channels that it believes to
    belong together, without end: at MOST_CHANNELS there is a MisreadError. Channels that are sliced and joined
    again, such as ReXNet's shortcuts, multiply the ways that it goes: at MOST_MEMBERS there is one, too.
    Parameters of no layer, such as positions, are pruned in their last dimension, which is right and not worth a
    warning.
    """
    from torch_pruning.dependency import group, index_mapping

    flatten: Any = index_mapping._FlattenIndexMapping
    groups: Any = group.Group
    plain, searched = flatten.__call__, groups.has_pruning_op
    flatten.__call__ = _bounded(plain)
    groups.has_pruning_op = _counted(searched)
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
            raise MisreadError(f"a reshape would join {len(places) * self._stride} channels")
        return mapping(self, places)

    return bounded


def _counted(searched: Callable[..., bool]) -> Callable[..., bool]:
    def counted(self: Any, dependency: Any, places: Any) -> bool:
        if len(self) > MOST_MEMBERS:
            raise MisreadError(f"more than {MOST_MEMBERS} layers would lose channels together")
        return searched(self, dependency, places)

    return counted
