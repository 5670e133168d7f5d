"""What travels through the stages: one version of the model with its history, and what surrounds the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from .progress import Progress, Quiet
from .tracking import Tracker, Untracked

if TYPE_CHECKING:
    from torch import nn

    from ..targets.probing import Prober
    from ..targets.profiles import Budget, Profile
    from ..targets.remote.measuring import Board
    from .contract import InputContract
    from .cutting import Cut
    from .data import Data
    from .quantization.scheme import Scheme

Form = Literal["float", "quantized"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one stage did: written once, shown in the report."""

    stage: str
    settings: Mapping[str, Any]
    seconds: float
    metrics: Mapping[str, Any]  # figures by name, as JSON can hold them
    curves: Mapping[str, list[float]] = field(default_factory=dict)  # one value for each epoch, by series
    peak_memory_mb: float | None = None
    skipped: str | None = None  # the reason, where the stage did not run


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """One variant of the model as a file that a runtime reads."""

    variant: str  # "baseline", "distilled", "pruned", "int8"
    precision: str
    path: Path  # what is shipped and measured
    onnx: Path  # the ONNX file: the same as `path` unless the target reads another format
    description: str
    parameters: int
    macs: int | None  # multiply-accumulates of one inference
    parity: Mapping[str, Any]  # argmax_agreement, max_abs_diff, n, ok
    warnings: tuple[str, ...] = ()
    fits_float16: bool = True  # False: a number in it was seen to be too large

    @property
    def size_bytes(self) -> int:
        """Bytes on disk of what is shipped; an OpenVINO IR is two files."""
        weights = self.path.with_suffix(".bin")
        extra = weights.stat().st_size if self.path.suffix == ".xml" else 0
        return self.path.stat().st_size + extra


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One version of the model. Stages do not change it, they return the next one.

    module: in eval mode, on the CPU. parent: the version before, so that the history can be exported and measured.
    """

    module: nn.Module
    contract: InputContract
    base: str  # which builder makes the unpruned original: "model" or "student"
    key: str  # of everything that determines this version
    form: Form = "float"
    scheme: Scheme | None = None  # how it is quantised
    cut: Cut | None = None  # the exit that it ends at, where it does not go to its own end
    files: tuple[ExportedFile, ...] = ()
    records: tuple[Record, ...] = ()
    parent: Artifact | None = None

    def next(self, *, record: Record, **changes: Any) -> Artifact:
        """The version that follows: what a stage returns. The key is set by whoever runs the stage."""
        return replace(self, records=(*self.records, record), parent=self, **changes)

    def lineage(self) -> tuple[Artifact, ...]:
        """Every version from the first to this one."""
        return (*(self.parent.lineage() if self.parent else ()), self)

    @property
    def original(self) -> Artifact:
        """The model as it was before anything was taken away: the teacher of every recovery."""
        trained = [version for version in self.lineage() if version.base == "model" and version.is_original]
        return trained[-1]

    @property
    def is_original(self) -> bool:
        """True until a stage has made the model another one; training it does not."""
        return all(record.stage == "train" or record.skipped for record in self.records)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What surrounds a stage."""

    data: Data
    profile: Profile
    work: Path  # the stage's own folder: checkpoints, exported files
    seed: int
    build: Mapping[str, Callable[[], nn.Module]]  # "model", and "student" where it is another network
    teachers: Mapping[str, nn.Module | str] = field(default_factory=dict)  # named ones: networks, or words such as ema
    student_from: str | None = None  # the teacher whose weights the student starts from; None: its own
    budget: Budget | None = None  # what the result may cost; None: nothing is said
    boards: tuple[Board, ...] = ()  # that are measured on, the first decides
    cache: Path | None = None  # a folder that may be deleted at any time
    training_precision: Literal["fp32", "bf16"] = "fp32"
    progress: Progress = field(default_factory=Quiet)
    tracker: Tracker = field(default_factory=Untracked)
    note: Callable[[str], None] = lambda text: None  # told what the user should know
    goals: Mapping[str, float] = field(default_factory=dict)  # limits of the budget that pruning works towards
    later: Mapping[str, Stage] = field(default_factory=dict)  # stages that will run after this one, by name
    tables: Path | None = None  # a folder for tables of measured times; like the cache it may be deleted
    prober: Prober | None = None  # who times candidates; none: this machine, where it is the device


class Stage(Protocol):
    """One step. A frozen dataclass whose fields are exactly the keys that a recipe may set."""

    name: ClassVar[str]
    takes: ClassVar[frozenset[Form | Literal["files"]]]  # what it can start from
    gives: ClassVar[Form | Literal["files", "figures", "same"]]

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        """Why this stage has nothing to do on that target, or None. alone: no other teacher or student is named."""

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        """Do the work. StageError: it could not be done."""
