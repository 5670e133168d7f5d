"""A recipe: one job, from YAML and options, checked as a whole before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..stages.distill.stage import Distill
from ..stages.distill.teacher_settings import Teachers, TeacherSettings, kind_of, listed
from ..stages.export import Export
from ..stages.profile import Measure
from ..stages.prune import Prune
from ..stages.quantize import Quantize
from ..stages.settings import DataSettings, ModelSettings, StudentSettings
from ..stages.tasks import TaskName
from ..stages.train import Train
from ..targets.errors import RecipeError, did_you_mean
from ..targets.profiles import Budget, StageName
from . import yaml_lines

STAGES: dict[str, type[Any]] = {
    "train": Train,
    "distill": Distill,
    "prune": Prune,
    "quantize": Quantize,
    "export": Export,
    "profile": Measure,
}  # in the order in which they make sense


def _listed_devices(value: object) -> object:
    """One address is a list of one."""
    return [value] if isinstance(value, str) else value


Devices = Annotated[tuple[str, ...], BeforeValidator(_listed_devices)]


class Recipe(BaseModel):
    """One job: which model, which data, for which device, within which budget, through which stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str = Field("openvino-cpu", description="a profile's name, or the path of one of your own")
    device: Devices = Field((), description="ssh://user@board[:port], one or several; none: the profile's")
    device_python: str = Field(
        "python3",
        pattern=r"^[A-Za-z0-9_./+][A-Za-z0-9_./+-]*$",
        description="the interpreter there that has the runtime",
    )
    model: ModelSettings = Field(description="the trained network: baseline, and teacher unless another is named")
    student: StudentSettings | None = Field(None, description="the network to ship; none: the model itself, pruned")
    teacher: Teachers | None = Field(None, description="who is imitated, one or several; none: the model")
    data: DataSettings
    task: TaskName | None = Field(None, description="what the answers mean; none: as the data say, or classification")
    budget: Budget | None = Field(None, description="none: the profile's")
    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")
    training_precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16 is faster on CPUs and GPUs that compute in it"
    )
    stages: tuple[StageName, ...] | None = Field(None, description="which, in order; none: the profile's")
    train: Train | None = Field(None, description="settings; a section that is there adds the stage")
    distill: Distill | None = None
    prune: Prune | None = None
    quantize: Quantize | None = None
    export: Export | None = None
    profile: Measure | None = None
    off: tuple[StageName, ...] = Field((), description="stages to leave out; `prune: off` says the same")

    def section(self, stage: str) -> Any:
        """The stage with its settings, defaults where the recipe is silent."""
        return getattr(self, stage) or STAGES[stage]()


@dataclass(frozen=True)
class Source:
    """Where a value was written, for errors: a file with lines, or an option."""

    origin: str
    lines: dict[yaml_lines.Path, int] = field(default_factory=dict)
    options: dict[yaml_lines.Path, str] = field(default_factory=dict)

    def place(self, path: yaml_lines.Path) -> str:
        """`recipe.yaml:7`, or the option that set it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.options:
                return self.options[path[:length]]
        line = yaml_lines.line_of(path, self.lines)
        return f"{self.origin}:{line}" if line else self.origin


def load(
    text: str | None, *, origin: str, folder: Path | None = None, options: Sequence[tuple[str, str]] = ()
) -> Recipe:
    """A recipe from YAML text and options over it.

    folder: what relative paths in the text start from. options: (`prune.ratio`, `0.5`) pairs; values are read as YAML
    and their paths start from the working directory. RecipeError: everything that is wrong, in one message.
    """
    data, lines = yaml_lines.read(text, origin=origin) if text is not None else ({}, {})
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise RecipeError(f"{origin}: a recipe is a mapping of keys to values, this is a {type(data).__name__}")
    source = Source(origin, lines)
    data = _expand(data)
    if folder is not None:
        anchor_(data, folder)
    for key, value in options:
        _set_(data, key, value, source)
    return validate(_switch_off(data), source)


def validate(data: Mapping[str, Any], source: Source) -> Recipe:
    """Check plain data. RecipeError: every problem, each with its place, what was seen and what to write."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = [_sentence(problem, source) for problem in error.errors()]
        raise RecipeError("\n".join(dict.fromkeys(problems))) from None


def _expand(data: dict[str, Any]) -> dict[str, Any]:
    """Short forms: a model or data set as one string."""
    short = ("model", "student", "data")
    for section in _taught(data):
        section["teacher"] = listed(section["teacher"])
    return {key: {"source": value} if key in short and isinstance(value, str) else value for key, value in data.items()}


def _taught(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every section that names teachers."""
    for section in (data, *(data.get(name) for name in STAGES)):
        if isinstance(section, dict) and section.get("teacher") is not None:
            yield section


def _switch_off(data: dict[str, Any]) -> dict[str, Any]:
    """`prune: off` (which YAML reads as false) leaves the stage out; `prune:` with nothing takes its defaults."""
    off = [name for name in STAGES if data.get(name) is False or data.get(name) == "off"]
    kept = {key: value for key, value in data.items() if key not in off}
    for name in STAGES:
        if name in kept and (kept[name] is None or kept[name] is True):
            kept[name] = {}
    return {**kept, "off": [*data.get("off", ()), *off]} if off else kept


def anchor_(data: dict[str, Any], folder: Path) -> None:
    """Relative paths in a recipe file start from its folder."""
    teachers = [one for section in _taught(data) for one in section["teacher"] if isinstance(one, dict)]
    for teacher in teachers:
        if isinstance(teacher.get("source"), str) and kind_of(teacher["source"]) in ("weights", "run"):
            teacher["source"] = str(folder / Path(teacher["source"]).expanduser())
    for section in (*(data.get(key) for key in ("model", "student", "data")), *teachers):
        if not isinstance(section, dict):
            continue
        for name in ("weights", "root"):
            if isinstance(section.get(name), str):
                section[name] = str(folder / Path(section[name]).expanduser())
        if isinstance(section.get("source"), str):
            section["source"] = _anchored(section["source"], folder)
    judges = data.get("data")
    if isinstance(judges, dict) and isinstance(judges.get("eval"), str):
        judges["eval"] = _anchored(judges["eval"], folder)
    distill = data.get("distill")
    if isinstance(distill, dict) and isinstance(distill.get("data"), str):
        distill["data"] = _anchored(distill["data"], folder)


def _anchored(source: str, folder: Path) -> str:
    for prefix in ("imagefolder:", "mnist:", "images:", "cached:"):
        if source.startswith(prefix):
            return prefix + str(folder / Path(source.removeprefix(prefix)).expanduser())
    if source.startswith("transformers:"):  # a folder, or the name of a kind of network
        name = source.removeprefix("transformers:")
        return f"transformers:{folder / Path(name).expanduser()}" if "/" in name else source
    if ".py:" in source:
        return str(folder / Path(source).expanduser())
    return source


def _set_(data: dict[str, Any], key: str, text: str, source: Source) -> None:
    """Write one option into the data, at its dotted path."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    path = tuple(key.split("."))
    place: dict[str, Any] = data
    for part in path[:-1]:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    if path == ("teacher",) and isinstance(value, str):
        value = {"source": value}  # a dictionary, so that `teacher.weights` can join it
    if path[-1] in ("model", "student", "data") and len(path) == 1:
        before = place.get(path[0])
        value = {**(before if isinstance(before, dict) else {}), "source": value}
    place[path[-1]] = value
    source.options[path] = f"option {key}={text}"


def _sentence(problem: Mapping[str, Any], source: Source) -> str:
    path = tuple(problem["loc"])
    place = source.place(path)
    name = ".".join(str(part) for part in path) or "the recipe"
    seen = problem["input"]
    kind = problem["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{place}: unknown key {name!r}{did_you_mean(str(path[-1]), _known_keys(path[:-1]))}"
    if kind in ("missing", "missing_argument"):
        return f"{place}: {name} is missing; {_HINTS.get(name, 'it has no default')}"
    if kind in ("dataclass_type", "model_type"):
        return f"{place}: {name} is a section of keys, not {seen!r}"
    message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    if kind == "literal_error" and isinstance(seen, str):
        choices = [word.strip(" '") for word in problem["ctx"]["expected"].replace(" or ", ",").split(",")]
        return f"{place}: {name}: {message} (seen: {seen!r}){did_you_mean(seen, choices)}"
    if kind == "value_error":
        return f"{place}: {name}: {message}"
    return f"{place}: {name} {message} (seen: {seen!r})"


_HINTS = {
    "model": "name one: `model: path/to/file.py:function`, or --model on the command line",
    "data": "name it: `data: imagefolder:PATH`, or --data on the command line",
}


def _known_keys(path: tuple[Any, ...]) -> list[str]:
    """Keys that are allowed at a path."""
    sections: dict[str, list[str]] = {
        name: [entry.name for entry in dataclass_fields(stage)] for name, stage in STAGES.items()
    }
    for name, model in (
        ("model", ModelSettings), ("student", StudentSettings), ("data", DataSettings),
        ("budget", Budget),
    ):  # fmt: skip
        sections[name] = list(model.model_fields)
    if "teacher" in path:
        return [entry.name for entry in dataclass_fields(TeacherSettings)]
    return sections.get(str(path[0]), []) if path else list(Recipe.model_fields)
