"""What of an INT8 file the target's runtime really runs in INT8: Q/DQ nodes in a file say nothing about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..targets import runtimes, tracing
from ..targets.layers import Layer, LayerTimes
from ..targets.profiles import Profile

NAMED = 6  # layers in the sentence


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """rounded: layers that were quantised. int8: those that run so. in_float: names of weighted layers that do not."""

    rounded: int
    int8: int
    in_float: tuple[str, ...]
    least: int
    runtime: str

    @property
    def is_enough(self) -> bool:
        return self.int8 >= self.least

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"rounded": self.rounded, "in_int8": self.int8, "least": self.least, "in_float": list(self.in_float)}

    def warning(self) -> str:
        counts = (
            f"{self.runtime} runs {self.int8} of {self.rounded} quantised layers in INT8, and the profile expects "
            f"{self.least} at least"
        )
        if not self.in_float:
            return f"{counts}; it does not name the others as layers of their own, so what they run in is not known"
        more = f" and {len(self.in_float) - NAMED} more" if len(self.in_float) > NAMED else ""
        return (
            f"{counts}; in float: {', '.join(self.in_float[:NAMED])}{more}. Leave those out with quantize.exclude, or "
            "replace what stands between them and their neighbours"
        )


def fusion(path: Path, onnx: Path, *, rounded: int, excluded: tuple[str, ...], profile: Profile) -> Fusion:
    """Load the file in the runtime that measures it and count.

    onnx: the same network, where the path is another format. rounded: how many layers were quantised. excluded: those
    that were meant to stay in float.
    """
    counted = runtimes.target(profile.measures_with).int8_layers(path, precision="int8", threads=profile.threads)
    nodes = LayerTimes(
        layers=tuple(
            Layer(node=name, kind="", precision="fp32", ms=0.0, role="weighted", sources=(name,))
            for name in counted["float_layers"]
        ),
        runs=0,
    )
    names = tuple(dict.fromkeys(layer.layer for layer in tracing.trace(nodes, onnx).layers))
    meant = [name for name in names if any(name == one or name.startswith(f"{one}.") for one in excluded)]
    # one layer may always stay behind: a small head costs more to round than it saves
    least = min(rounded - 1, round(profile.int8_layers * rounded))
    return Fusion(
        rounded=rounded,
        int8=min(rounded, int(counted["int8_layers"])),
        in_float=tuple(name for name in names if name not in meant),
        least=max(0, least),
        runtime=profile.measures_with,
    )
