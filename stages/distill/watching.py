"""See what a network says, and what its modules say on the way: hooks that live no longer than one call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...targets.errors import StageError, did_you_mean
from .nouns import Out

Projection = Literal["q", "k", "v"]  # of an attention: its queries, keys or values
Side = Literal["out", "in", "attention", "q", "k", "v"]
TAP = re.compile(r"(?P<module>[^:#]*)(?::(?P<side>in|attention|q|k|v))?(?:#(?P<call>\d+))?")


@dataclass
class _Seen:
    """What one tap saw."""

    value: Tensor | None = None
    version: int = 0
    calls: int = 0


@dataclass(frozen=True)
class Place:
    """A tap taken apart.

    `layer3.0` is what a module says, `fc:in` what it is given, `relu#2` its third call. `layer3:attention` is where it
    is active: the mean over channels of the square of what it says, of length 1 over all positions, with one channel.
    `attn.qkv:q` is the first third of what a fused projection says, and `attn:k` the keys of a
    torch.nn.MultiheadAttention.
    """

    module: str
    side: Side = "out"
    call: int = 0

    @classmethod
    def of(cls, tap: str) -> Place:
        """StageError: that is not how a tap is written."""
        found = TAP.fullmatch(tap)
        if found is None:
            raise StageError(f"{tap!r} is no tap: write module.path, module.path:in, module.path:q or module.path#2")
        return cls(found["module"], found["side"] or "out", int(found["call"] or 0))  # type: ignore[arg-type]

    def __str__(self) -> str:
        side = "" if self.side == "out" else f":{self.side}"
        return f"{self.module}{side}" + (f"#{self.call}" if self.call else "")


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
    modules = dict(bare(module).named_modules())
    watching, handles = _Watch(), []
    found: dict[str, Tensor] = {}
    try:
        for tap in taps:
            place = Place.of(tap)
            if place.module not in modules:
                raise StageError(f"no module {place.module!r} to tap{did_you_mean(place.module, modules)}")
            watching.seen[tap] = _Seen()
            handles.append(_hook(modules[place.module], place, partial(watching.keep, tap, place.call)))
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
                f"the output of {tap} is changed in place after the tap saw it; set inplace=False on the activation "
                f"that follows it, or tap that one: its output, or its input, as in relu:in"
            )
        found[tap] = one.value


class Tapped:
    """A network as one function of its input, hooks and all, that torch.compile can take whole.

    Unlike those of `watch` its hooks stay, until `close`. taps: such as `watch` has found before.
    """

    def __init__(self, module: nn.Module, taps: Sequence[str]) -> None:
        self._module, self._taps = module, tuple(taps)
        self._passed: dict[str, Tensor] = {}
        self._calls: dict[str, int] = {}
        modules = dict(bare(module).named_modules())
        places = {tap: Place.of(tap) for tap in taps}
        self._handles = [
            _hook(modules[place.module], place, partial(self._keep, tap, place.call)) for tap, place in places.items()
        ]

    def __call__(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and what passed each tap."""
        self._calls.update(dict.fromkeys(self._taps, 0))
        logits = logits_of(self._module(x))
        return logits, {tap: self._passed.pop(tap) for tap in self._taps}

    def close(self) -> None:
        """Leave the network without hooks."""
        for handle in self._handles:
            handle.remove()

    def _keep(self, tap: str, call: int, value: Any) -> None:
        if self._calls.get(tap) == call:
            self._passed[tap] = first_tensor(value, tap)
        self._calls[tap] = self._calls.get(tap, 0) + 1


@contextmanager
def still(*modules: nn.Module) -> Iterator[None]:
    """A pass without a trace: in eval mode, no gradient, no batch statistics, no random number used up."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            yield
    finally:
        for part, mode in modes:
            part.training = mode  # each its own: train() would thaw what was frozen on purpose


def bare(module: nn.Module) -> nn.Module:
    """The network inside the wrappers of torch.compile and of data-parallel training: its names have no prefix."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


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
    while isinstance(value, (tuple, list, Mapping)) and value:
        value = next(iter(value.values() if isinstance(value, Mapping) else value))
    if not isinstance(value, Tensor):
        raise StageError(f"{tap} passes on {type(value).__name__}, not a tensor: tap another module")
    return value


def _hook(module: nn.Module, place: Place, keep: partial[None]) -> RemovableHandle:
    if place.side == "out":
        return module.register_forward_hook(lambda _module, _given, passed: keep(passed))
    if place.side == "in":
        return module.register_forward_pre_hook(
            lambda _module, given, named: keep(_untouched(module, given or tuple(named.values()))), with_kwargs=True
        )
    if place.side == "attention":
        return module.register_forward_hook(lambda _module, _given, passed: keep(_attention(passed, place.module)))
    which = place.side
    if isinstance(module, nn.MultiheadAttention):
        return module.register_forward_pre_hook(
            lambda _module, given, named: keep(_projected(module, given, named, which)), with_kwargs=True
        )
    return module.register_forward_hook(lambda _module, _given, passed: keep(_third(passed, which, place.module)))


def _untouched(module: nn.Module, given: tuple[Any, ...]) -> Any:
    """What a module is given; a copy, where the module will write over it."""
    return given[0].clone() if given and getattr(module, "inplace", False) else given


def _attention(passed: Any, name: str) -> Tensor:
    """(batch, 1, height, width) of maps, (batch, length, 1) of tokens; in float32, as squares need it."""
    said = first_tensor(passed, name)
    if said.ndim not in (3, 4):
        raise StageError(f"{name}:attention needs positions, and what {name} says are vectors")
    energy = said.float().square().mean(dim=1 if said.ndim == 4 else 2, keepdim=True)
    return F.normalize(energy.flatten(1)).view_as(energy)


def _third(passed: Any, which: Projection, name: str) -> Tensor:
    """Queries, keys or values of one projection for all three, as ViTs have it."""
    whole = first_tensor(passed, name)
    if whole.shape[-1] % 3:
        raise StageError(f"{name}:{which}: what it says is {whole.shape[-1]} wide, not queries, keys and values")
    return whole.chunk(3, dim=-1)[get_args(Projection).index(which)]


def _projected(
    attention: nn.MultiheadAttention, given: tuple[Any, ...], named: Mapping[str, Any], which: Projection
) -> Tensor:
    """Queries, keys or values of torch's attention, which computes them inside a function that no hook sees."""
    place = get_args(Projection).index(which)
    source: Tensor = given[place] if len(given) > place else named[("query", "key", "value")[place]]
    if not attention.batch_first and source.ndim == 3:
        source = source.transpose(0, 1)
    rows = slice(place * attention.embed_dim, (place + 1) * attention.embed_dim)
    fused: Tensor | None = attention.in_proj_weight
    weight = getattr(attention, f"{which}_proj_weight") if fused is None else fused[rows]
    bias: Tensor | None = attention.in_proj_bias
    return F.linear(source, weight, None if bias is None else bias[rows])
