"""Which runtimes can load an exported model here, and what each of them promises."""

from pathlib import Path
from typing import Any, Protocol

from .errors import RecipeError, did_you_mean
from .ort import OnnxRuntime
from .ov import OpenVINO
from .sessions import Session
from .trt import TensorRT


class Target(Protocol):
    """A runtime: builds an engine from a file and runs it."""

    name: str

    def unavailable(self) -> str | None:
        """Why it cannot be used on this machine, with the way out; None where it can."""

    def version(self) -> str: ...

    def load(self, path: Path, *, precision: str, threads: int = 1) -> Session:
        """A session that is ready to answer. One of targets.errors tells why there is none."""

    def int8_layers(self, path: Path, *, precision: str = "int8", threads: int = 1) -> dict[str, Any]:
        """What the runtime really runs in INT8, read from the graph that it built.

        {"int8_layers": int, "weighted_layers": int, "kinds": {kind: count}, "float_layers": [names]}
        """


TARGETS: dict[str, Target] = {target.name: target for target in (OnnxRuntime(), OpenVINO(), TensorRT())}


def target(name: str) -> Target:
    """The runtime of that name. RecipeError: there is none."""
    if name not in TARGETS:
        raise RecipeError(f"no runtime {name!r}{did_you_mean(name, TARGETS)}")
    return TARGETS[name]
