"""Which layers suffer from INT8, and what each of them would cost in float."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...targets import layers as counters
from ...targets import tracing
from ...targets.errors import EdgepressError
from ...targets.jobs import Engine
from ...targets.profiles import Profile
from .damage import answers, damage
from .frozen import freeze
from .posttraining import BATCH, only_
from .prepare import rounded_layers
from .scheme import Scheme
from .switching import set_rounding_

SAMPLES = 128  # that each layer alone is judged on: there are as many passes as layers
COUNTED_SECONDS = 0.3  # of the runtime's counters, for each of the two files
LEAST_MS = 5e-4  # half a microsecond: the counters count whole ones


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One layer. loss, sqnr_db: of the answers when it alone is rounded. gain_ms: what INT8 saves there; None: not
    measured."""

    layer: str
    loss: float
    sqnr_db: float
    gain_ms: float | None

    @property
    def worth(self) -> float:
        """Damage for each millisecond that INT8 saves: what is largest goes back to float first."""
        return self.loss if self.gain_ms is None else self.loss / max(self.gain_ms, LEAST_MS)

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"layer": self.layer, "loss": self.loss, "sqnr_db": self.sqnr_db, "gain_ms": self.gain_ms}


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """suspects: the first to go back first. untimed: why no layer's time could be had; None: they were measured."""

    suspects: tuple[Suspect, ...]
    untimed: str | None


def rank(
    prepared: nn.Module,
    twin: nn.Module,
    scheme: Scheme,
    batches: Sequence[Tensor],
    *,
    profile: Profile,
    are_classes: bool,
) -> Ranking:
    """Every rounded layer, by the damage that it does for each millisecond that it saves.

    prepared: left as it was. twin: the float network that it rounds.
    """
    images = torch.cat(list(batches))[:SAMPLES]
    some = list(torch.split(images, BATCH))
    only_(prepared, None)
    wanted = answers(prepared, some)
    found = {}
    for name in rounded_layers(prepared):
        only_(prepared, name)
        found[name] = damage(answers(prepared, some), wanted, are_classes=are_classes)
    set_rounding_(prepared, True)
    gains = gains_ms(prepared, twin, scheme, images[:1], profile=profile)
    suspects = [
        Suspect(
            layer=name,
            loss=one.loss,
            sqnr_db=one.sqnr_db,
            gain_ms=None if isinstance(gains, str) else gains.get(name, 0.0),
        )
        for name, one in found.items()
    ]
    ordered = sorted(suspects, key=lambda suspect: -suspect.worth)
    return Ranking(suspects=tuple(ordered), untimed=gains if isinstance(gains, str) else None)


def gains_ms(
    prepared: nn.Module, twin: nn.Module, scheme: Scheme, example: Tensor, *, profile: Profile
) -> dict[str, float] | str:
    """Milliseconds that INT8 saves in each layer, by the counters of the runtime that runs it here.

    Why not, in words, where the runtime does not tell.
    """
    from ..onnx_file import write_onnx

    with tempfile.TemporaryDirectory(prefix="edgepress-sensitivity-") as name:
        folder = Path(name)
        engines = {}
        try:
            for kind, module in {"float": twin, "int8": freeze(prepared, scheme)}.items():
                path = folder / f"{kind}.onnx"
                write_onnx(module, path, example=example, opset=profile.opset, dynamic_batch=False, metadata={})
                engines[kind] = Engine(
                    name=kind,
                    path=path,
                    runtime=profile.measures_with,
                    precision="int8" if kind == "int8" else "fp32",
                    threads=profile.threads,
                )
            read = counters.measure_layers(
                list(engines.values()),
                sample=example.numpy(),
                seconds=COUNTED_SECONDS,
                environment=profile.environment,
            )
        except EdgepressError as error:
            return str(error)
        if read.problems:
            return "; ".join(read.problems.values())
        spent = {kind: _by_layer(read.times[kind], engines[kind].path) for kind in engines}
    return {layer: ms - spent["int8"].get(layer, 0.0) for layer, ms in spent["float"].items()}


def _by_layer(times: counters.LayerTimes, path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for layer in tracing.trace(times, path).layers:
        if layer.role == "weighted":
            found[layer.layer] = found.get(layer.layer, 0.0) + layer.ms
    return found
