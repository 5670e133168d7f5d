"""What a recipe may say about teachers: who they are, how much each counts, what is kept of their answers. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")
WORDS = {
    "model": "the original model",
    "float": "the network as the stage finds it",
    "ema": "the student's average over its own steps",
    "snapshot": "the student as it is when the training begins",
    "previous": "the student as it was an epoch before",
}
WEIGHTS = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
Kind = Literal["word", "weights", "network", "run"]
Weigh = Literal["alike", "confidence", "entropy", "learned"]


def kind_of(source: str) -> Kind:
    """What a teacher's source is: a word, a file of weights for the model, a network of its own, or an earlier run."""
    if source in WORDS:
        return "word"
    if source.endswith(WEIGHTS):
        return "weights"
    return "network" if re.match(r"[a-z]+:|.*\.py(:|$)", source) else "run"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TeacherSettings:
    """One teacher.

    source: a word (model, float, ema, snapshot, previous), a file of weights for the model's architecture, a network
    as `model` takes it, or the folder of an earlier run, whose best float network it is. weights, arguments: of a
    network, as for `model`. name: what the report calls it; none: made from the rest.
    """

    source: str = "model"
    weights: str | None = None
    arguments: Mapping[str, Any] = Field(default_factory=dict)
    name: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> TeacherSettings:
        if self.weights is None and not self.arguments:
            return self
        if self.kind in ("weights", "run") or (self.kind == "word" and self.source != "model"):
            what = WORDS.get(self.source, "a file of weights" if self.kind == "weights" else "an earlier run")
            raise ValueError(f"{self.source} is {what}, which takes neither weights nor arguments")
        if self.arguments and self.source == "model":
            raise ValueError("the model is built with model.arguments; name a source to build another network")
        return self

    @property
    def kind(self) -> Kind:
        return kind_of(self.source)

    @property
    def label(self) -> str:
        """What it is called in the report, where no other teacher is called so."""
        if self.name is None and self.kind == "network" and self.weights is None:
            return _plain(self.source.rpartition(":")[2])
        return _plain(self.name or Path(self.weights or self.source).stem)


def listed(seen: Any) -> Any:
    """One teacher or several, each perhaps as a string."""
    many = seen if isinstance(seen, (list, tuple)) else [seen]
    return [{"source": one} if isinstance(one, str) else one for one in many]


def cache(seen: Any) -> Any:
    """`auto`, `off` (which YAML reads as false), or gigabytes."""
    if isinstance(seen, bool):
        return "auto" if seen else "off"
    if seen not in ("auto", "off") and not (isinstance(seen, (int, float)) and seen > 0):
        raise ValueError(f"should be auto, off, or a number of gigabytes above 0 (seen: {seen!r})")
    return seen


def by_name(teachers: tuple[TeacherSettings, ...]) -> dict[str, TeacherSettings]:
    """Each under a name of its own: the second `big` is `big-2`."""
    found: dict[str, TeacherSettings] = {}
    for one in teachers:
        name, number = one.label, 2
        while name in found:
            name, number = f"{one.label}-{number}", number + 1
        found[name] = one
    return found


def _plain(name: str) -> str:
    """Without what separates names elsewhere."""
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "teacher"


Teachers = Annotated[tuple[TeacherSettings, ...], BeforeValidator(listed), Field(min_length=1)]
Cache = Annotated[Literal["auto", "off"] | float, BeforeValidator(cache)]
Views = Annotated[int, Field(ge=1, le=1000)]
