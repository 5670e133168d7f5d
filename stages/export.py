"""Write every version of the model as a file that the target's runtime reads."""

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from ..targets.profiles import Profile
from .artifact import Artifact, Context, Form
from .lesson import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Export:
    """ONNX at the profile's operator set, in the profile's precisions, checked against torch on real images.

    dynamic_batch: leave the batch size open; closed at 1 it is faster in most runtimes. require_int8: end the run where
    the runtime runs fewer quantised layers in INT8 than the profile expects, where it is otherwise told to go on with a
    warning.
    """

    dynamic_batch: bool = False
    require_int8: bool = False

    name: ClassVar[str] = "export"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float", "quantized"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "files"

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        return None

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from .exporting import export

        return export(self, artifact, context)
