"""Whether both operands of residual additions are rounded: some CPUs are faster with it, and some without, so both are
timed."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...targets.errors import DeviceError, StageError, UnfitError
from ...targets.jobs import Engine
from ...targets.probing import Prober
from ...targets.statistics import Ratio, ratio
from ..artifact import Context
from ..probing import prober_of
from ..structure import structure
from .prepare import prepare, roundings
from .scheme import Scheme
from .trial import write_int8, writer

SECONDS = 4.0  # of timing, for both files together
SIDES = {"skip": "one side", "both": "both sides"}
Write = Callable[[Path, Scheme], object]
KEPT = "additions.json"  # in the stage's folder: what was trained with one layout does not go on with the other


@dataclass(frozen=True, kw_only=True)
class Additions:
    """A scheme, and how it was chosen. seen: how many times as fast both operands are as the skip alone; None where
    nothing was timed, and where it was tried `failed` says why."""

    scheme: Scheme
    seen: Ratio | None = None
    failed: str | None = None

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        rounded = "both" if self.scheme.whole_additions else "skip"
        seen = None if self.seen is None else asdict(self.seen)
        return {"rounded": rounded, "both_are_faster": seen, "failed": self.failed}

    def sentence(self) -> str | None:
        """What the user should know; None: nothing was tried."""
        if self.failed is not None:
            return f"one operand of residual additions is rounded; whether both were faster is not known: {self.failed}"
        if self.seen is None:
            return None
        times = f"{self.seen.value:.2f} times as fast here ({self.seen.low:.2f} to {self.seen.high:.2f})"
        if self.scheme.additions == "both":
            return f"both operands of residual additions are rounded, which is {times}"
        return f"one operand of residual additions is rounded; with both it would be {times}"


def with_faster_additions(module: nn.Module, scheme: Scheme, context: Context, images: Sequence[Tensor]) -> Additions:
    """The scheme with both operands of residual additions rounded where OpenVINO is surely faster so on the target.

    module: a float network. images: batches that ranges are observed on. Where the target is not here, and where the
    network has no such addition, the scheme as it is. What was timed once for a network is kept in the stage's folder.
    """
    prober = prober_of(context) if scheme.flavour == "openvino" else None
    if prober is None:
        return Additions(scheme=scheme)
    write = writer(context, images[0][:1])

    def write_with(path: Path, scheme: Scheme) -> None:
        context.progress.update(0.0, f"timing INT8 with additions rounded on {SIDES[scheme.additions]}")
        write_int8(module, path, scheme=scheme, images=images, write=write, context=context)

    return faster_additions(module, scheme, prober=prober, write=write_with, kept=context.work / KEPT)


def faster_additions(
    module: nn.Module,
    scheme: Scheme,
    *,
    prober: Prober,
    write: Callable[[Path, Scheme], object],
    kept: Path | None = None,
) -> Additions:
    """The same for whoever times and writes. write: the network in INT8 by a scheme. kept: a file for the choice."""
    both = replace(scheme, additions="both")
    if not _differ(module, scheme, both):
        return Additions(scheme=scheme)
    key = _key(module, scheme)
    seen = None if kept is None else _read(kept, key)
    if seen is None:
        try:
            seen = _timed((scheme, both), prober, write)
        except DeviceError:
            raise
        except StageError as error:
            return Additions(scheme=scheme, failed=str(error))
        if kept is not None:
            _write(kept, key, seen)
    return Additions(scheme=both if seen.low > 1 else scheme, seen=seen)


def _differ(module: nn.Module, one: Scheme, other: Scheme) -> bool:
    """Whether the network has more roundings with one than with the other. False, too, where it takes none at all:
    whoever quantises it says so."""
    try:
        return len(roundings(prepare(module, one))) != len(roundings(prepare(module, other)))
    except UnfitError:
        return False


def _timed(schemes: tuple[Scheme, Scheme], prober: Prober, write: Write) -> Ratio:
    """How many times as fast the second is as the first."""
    identity = prober.identity
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        engines = []
        for scheme in schemes:
            path = Path(folder) / f"{scheme.additions}.onnx"
            write(path, scheme)
            engines.append(Engine(
                name=scheme.additions, path=path, runtime=str(identity["runtime"]), precision="int8",
                threads=int(identity["threads"]),
            ))  # fmt: skip
        found = prober.probe(engines, seconds=SECONDS)
    times = []
    for engine in engines:
        one = found[engine.name]
        if one.latency is None:
            raise StageError(f"INT8 with {engine.name} of an addition's operands rounded does not run: {one.failed}")
        times.append(one.latency)
    return ratio(*times)


def _key(module: nn.Module, scheme: Scheme) -> str:
    text = json.dumps([structure(module), str(scheme)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path, key: str) -> Ratio | None:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return Ratio(**known["seen"]) if known["network"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, key: str, seen: Ratio) -> None:
    if not path.parent.is_dir():
        return
    part = path.with_suffix(".part")
    value = {"network": key, "seen": asdict(seen)}
    part.write_text(json.dumps(value) + "\n", encoding="utf-8")
    part.replace(path)
