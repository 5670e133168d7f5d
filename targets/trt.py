"""TensorRT: the runtime on a GPU of this machine, and the flags of its tool for engines that are built on a board."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import RecipeError
from .operator_tables import version_tuple
from .sessions import Session

STRONGLY_TYPED = (11,)  # from here on precisions come from the graph, and trtexec's other defaults turned round
PRECISION_FLAGS = {"fp16": "--fp16", "int8": "--int8"}


class TensorRT:
    """On an NVIDIA GPU of this machine. A board is another matter: engines are built there (`remote`)."""

    name = "tensorrt"

    def unavailable(self) -> str | None:
        from .trt_here import problem

        return problem()

    def version(self) -> str:
        from .trt_here import version

        return version()

    def load(self, path: Path, *, precision: str, threads: int = 1) -> Session:
        from .trt_here import load

        return load(path, precision=precision)

    def int8_layers(self, path: Path, *, precision: str = "int8", threads: int = 1) -> dict[str, Any]:
        from .trt_here import int8_layers

        return int8_layers(path, precision=precision)


def is_strongly_typed(version: str) -> bool:
    """Whether precisions come from the types in the file alone."""
    return version_tuple(version) >= STRONGLY_TYPED


def build_flags(version: str, *, precisions: Sequence[str], workspace_mb: int) -> list[str]:
    """What trtexec of that version wants to hear to build an engine and stop.

    precisions: what the engine may compute in; fp32 is always allowed. From version 11 on there is no flag for them:
    the file has to have the types (`half.py`). RecipeError: no precision that trtexec has a flag for.
    """
    release = version_tuple(version)
    pool = "--workspace=" if release < (8, 4) else "--memPoolSize=workspace:"
    flags = [f"{pool}{workspace_mb}"]
    asked = [precision for precision in PRECISION_FLAGS if precision in precisions]
    unknown = sorted(set(precisions) - set(PRECISION_FLAGS) - {"fp32"})
    if unknown:
        raise RecipeError(f"no flag of trtexec for {', '.join(unknown)} (known: fp32, fp16, int8)")
    if release < STRONGLY_TYPED:
        flags.extend(PRECISION_FLAGS[precision] for precision in asked)
    flags.append("--buildOnly" if release < (8, 6) else "--skipInference")
    flags.append("--profilingVerbosity=detailed")  # without it the layers of the engine cannot be read later
    return flags


def timing_flags(version: str, *, seconds: float = 15.0, warmup_seconds: float = 2.0) -> list[str]:
    """What trtexec of that version wants to hear to time an engine, with the same meaning in all versions.

    seconds: of timing; trtexec takes whole ones. warmup_seconds: before them.

    Data transfers are counted, CUDA graphs and spinning are not used: the defaults before 11, which turned
    them round.
    """
    flags = [f"--warmUp={round(1000 * warmup_seconds)}", f"--duration={max(1, round(seconds))}", "--iterations=200"]
    flags.append("--avgRuns=10")
    if version_tuple(version) >= STRONGLY_TYPED:
        flags.extend(["--includeDataTransfers", "--noCudaGraph", "--noSpinWait"])
    return flags


def version_code(version: str) -> str:
    """How trtexec prints its version: 8.2.1 as 8201, 10.3.0 as 100300."""
    major, minor, patch, *_ = (*version_tuple(version), 0, 0)
    return f"{major}{minor:02}{patch:02}" if major >= 10 else f"{major}{minor}{patch:02}"
