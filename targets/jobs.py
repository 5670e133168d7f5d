"""What a measuring process is asked to do, and how its answer travels: JSON and .npy files in one folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from .statistics import Latency

Mode = Literal["pinned", "all_cores", "batch", "memory", "energy", "sustained", "layers"]

JOB = "job.json"
RESULT = "result.json"
SAMPLE = "sample.npy"  # one image: what is timed


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One exported file in one runtime: what is compared. threads: of the pinned run."""

    name: str
    path: Path
    runtime: str
    precision: str
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measuring process. splits: .npy files in the folder, by split. batch: samples of each timed call."""

    mode: Mode
    engines: tuple[Engine, ...]
    splits: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    warmup_seconds: float = 0.0
    seed: int = 0
    batch: int = 1

    def write(self, folder: Path) -> None:
        values = asdict(self)
        for engine in values["engines"]:
            engine["path"] = str(engine["path"].absolute())
        (folder / JOB).write_text(json.dumps(values), encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> "Job":
        values = json.loads((folder / JOB).read_text(encoding="utf-8"))
        engines = tuple(Engine(**{**engine, "path": Path(engine["path"])}) for engine in values.pop("engines"))
        return Job(engines=engines, **values)


def pack(latency: Latency) -> dict[str, Any]:
    return asdict(latency)


def unpack(values: Mapping[str, Any]) -> Latency:
    known = {name.name for name in fields(Latency)}
    plain = {key: value for key, value in values.items() if key in known}
    plain["samples_ms"] = tuple(tuple(visit) for visit in values["samples_ms"])
    plain["visited_s"] = tuple(values["visited_s"])
    plain["rounds_by_load"] = tuple(values["rounds_by_load"])
    return Latency(**plain)
