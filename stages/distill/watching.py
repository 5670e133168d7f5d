"""See what a network says, and what its modules say on the way: hooks that live no longer than one call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...targets.errors import StageError, did_you_mean
from .nouns import Out

TAP = re.compile(r"(?P<module>[^:#]*)(?P<input>:in)?(?:#(?P<call>\d+))?")


@dataclass
class _Seen:
    """What one tap saw."""

    value: Tensor | None = None
    version: int = 0
    calls: int = 0


@dataclass(frozen=True)
class Place:
    """A tap taken apart: `layer3.0`, `fc:in` (what the module was given) or `relu#2` (its third call)."""

    module: str
    is_input: bool = False
    call: int = 0

    @classmethod
    def of(cls, tap: str) -> Place:
        """StageError: that is not how a tap is written."""
        found = TAP.fullmatch(tap)
        if found is None:
            raise StageError(f"{tap!r} is no tap: write module.path, module.path:in or module.path#2")
        return cls(found["module"], found["input"] is not None, int(found["call"] or 0))


@dataclass
class _Watch:
    seen: dict[str, _Seen] = field(default_factory=dict)

    def keep(self, tap: str, call: int, value: Any) -> None:
        one = self.seen[tap]
        if one.calls == call:
            one.value = first_tensor(value, tap)
            one.version = one.value._version
        one.calls += 1


@contextmanager
def watch(module: nn.Module, taps: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect what passes the taps while the block runs; the dictionary is filled at its end.

    StageError: a tap names no module, was not reached, or its tensor was changed in place after it was seen.
    """
    modules = dict(module.named_modules())
    watching, handles = _Watch(), []
    for tap in taps:
        place = Place.of(tap)
        if place.module not in modules:
            raise StageError(f"no module {place.module!r} to tap{did_you_mean(place.module, modules)}")
        watching.seen[tap] = _Seen()
        handles.append(_hook(modules[place.module], place, partial(watching.keep, tap, place.call)))
    found: dict[str, Tensor] = {}
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    for tap, one in watching.seen.items():
        if one.value is None:
            raise StageError(
                f"{tap} is not reached: the module is called {one.calls} times in a pass (calls count from #0)"
            )
        if one.value._version != one.version:
            raise StageError(
                f"the output of {tap} is changed in place after the tap saw it; "
                "set inplace=False on the activation that follows it, or tap that one"
            )
        found[tap] = one.value


def answer(module: nn.Module, x: Tensor, taps: Sequence[str] = ()) -> Out:
    """Show samples to a network. Logits and features come back in float32."""
    if not taps:
        return Out(logits=logits_of(module(x)).float())
    with watch(module, taps) as feats:
        logits = logits_of(module(x)).float()
    return Out(logits=logits, feats={tap: value.float() for tap, value in feats.items()})


def logits_of(said: Any) -> Tensor:
    """The logits in what a network returns: a tensor, a tuple that begins with it, or something with `logits`.

    StageError: there is no such thing.
    """
    if isinstance(said, Tensor):
        return said
    if isinstance(said, Mapping) and isinstance(said.get("logits"), Tensor):
        return said["logits"]  # type: ignore[no-any-return]
    if isinstance(getattr(said, "logits", None), Tensor):
        return said.logits  # type: ignore[no-any-return]
    if isinstance(said, (tuple, list)) and said and isinstance(said[0], Tensor):
        return said[0]
    raise StageError(
        f"the network returns {type(said).__name__} and edgepress looks for a tensor of logits: return it alone, "
        "first in a tuple, or under the name `logits`"
    )


def first_tensor(value: Any, tap: str) -> Tensor:
    """What a module passed on: blocks of transformers return tuples. StageError: nothing in it is a tensor."""
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, Tensor):
        raise StageError(f"{tap} passes on {type(value).__name__}, not a tensor: tap another module")
    return value


def _hook(module: nn.Module, place: Place, keep: partial[None]) -> RemovableHandle:
    if place.is_input:
        return module.register_forward_pre_hook(
            lambda _module, given, named: keep(given or tuple(named.values())), with_kwargs=True
        )
    return module.register_forward_hook(lambda _module, _given, passed: keep(passed))
