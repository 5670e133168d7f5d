"""Measure every variant in the runtime that will run it: latency in turn, memory, accuracy through one session."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..targets.profiles import Profile
from .artifact import Artifact, Context, Form
from .lesson import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Measure:
    """seconds: of timing for all variants together, one pinned thread. all_cores, memory: whether to measure them.

    layers: read the time of each layer, which explains what the other figures show. sustained_seconds: above 0, time
    them for so long again, to see what heat does. lock_clocks: hold a board's clocks meanwhile, and put them back.
    power_mode: of a Jetson, by nvpmodel's number; the board is put into it meanwhile, and back.
    """

    seconds: Annotated[float, Field(gt=0, le=86_400)] = 8.0
    all_cores: bool = True
    memory: bool = True
    layers: bool = True
    sustained_seconds: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    lock_clocks: bool = False
    power_mode: Annotated[int, Field(ge=0, le=99)] | None = None

    name: ClassVar[str] = "profile"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"files"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "figures"

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        return None

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from .profiling import profile

        return profile(self, artifact, context)
