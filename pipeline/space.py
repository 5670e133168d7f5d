"""Which settings a search may change, and between what: from `--over KEY=LOW:HIGH`, or from the stage itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..stages.distill.losses import defaults
from ..stages.lesson import Lesson
from ..targets.errors import RecipeError
from .plan import PlannedStage

DECADE = 10.0  # from one end to the other: beyond it a scale is logarithmic
LR_RANGE = (1 / 8, 8.0)  # times what the recipe has
WEIGHT_RANGE = (0.1, 10.0)
TEMPERATURES = (1.0, 20.0)
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER}):({NUMBER})")
TASK_LOSSES = ("ce", "bce", "mse", "huber")  # their weight is the unit of the others'


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One setting. key: of the recipe. low, high: ends of a range; or choices. whole: whole numbers only."""

    key: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()
    whole: bool = False

    @property
    def logarithmic(self) -> bool:
        """Whether each factor is as likely as the next, and not each number."""
        return self.low > 0 and self.high / self.low >= DECADE

    def suggest(self, trial: Any) -> Any:
        """What an Optuna trial tries here."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.logarithmic)
        return trial.suggest_float(self.key, self.low, self.high, log=self.logarithmic)

    def ends(self) -> tuple[Any, ...]:
        """Values that must be possible if every one is."""
        if self.choices:
            return self.choices
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value lies within."""
        if self.choices:
            return str(value) in self.choices
        return isinstance(value, (int, float)) and self.low <= value <= self.high


def parse(words: Sequence[str], stage: PlannedStage) -> tuple[Axis, ...]:
    """`distill.kd=0.1:10`, `distill.optimizer=adamw,sgd`. RecipeError: not written like that, or of another stage."""
    axes = []
    for word in words:
        key, equals, values = word.partition("=")
        name, dot, rest = key.partition(".")
        if not equals or not dot or name != stage.name:
            raise RecipeError(
                f"--over {word}: write it as {stage.name}.KEY=LOW:HIGH, or {stage.name}.KEY=ONE,OTHER; "
                "a search changes the settings of one stage"
            )
        key = f"{stage.name}.{_whole_path(rest)}"
        found = RANGE.fullmatch(values)
        if found is None:
            choices = tuple(values.split(","))
            if len(choices) < 2 or not all(choices):
                raise RecipeError(f"--over {word}: neither LOW:HIGH, two numbers, nor at least two values with commas")
            axes.append(Axis(key=key, choices=choices))
            continue
        low, high = float(found[1]), float(found[2])
        if low >= high:
            raise RecipeError(f"--over {word}: {found[1]} is not below {found[2]}")
        axes.append(Axis(key=key, low=low, high=high, whole=_is_whole(current(stage, key))))
    return tuple(axes)


def usual(stage: PlannedStage) -> tuple[Axis, ...]:
    """The learning rate, the weights beside the task's own loss, and temperatures."""
    lesson: Any = stage.stage
    assert isinstance(lesson, Lesson), "only stages that train have settings to search"
    if lesson.loss is None:
        axes = [rate(stage)]
        if lesson.kd:
            axes += [_weight(f"{stage.name}.kd", lesson.kd), _temperature(f"{stage.name}.temperature")]
        if attention := float(getattr(lesson, "at", 0.0)):
            axes.append(_weight(f"{stage.name}.at", attention))
        return tuple(axes)
    axes = [rate(stage)]
    for name, loss in lesson.losses().items():
        key = f"{stage.name}.loss.{name}"
        if name not in TASK_LOSSES and loss.weight > 0:
            axes.append(_weight(f"{key}.weight", loss.weight))
        if isinstance(defaults(name).get("temperature"), float):
            axes.append(_temperature(f"{key}.temperature"))
    return tuple(axes)


def rate(stage: PlannedStage) -> Axis:
    """The learning rate, around what the recipe has."""
    lr = float(stage.settings["lr"])
    return Axis(key=f"{stage.name}.lr", low=lr * LR_RANGE[0], high=min(10.0, lr * LR_RANGE[1]))


def current(stage: PlannedStage, key: str) -> Any:
    """What the recipe has at a key; None where it leaves an option to its default, which is then that."""
    value: Any = stage.settings
    parts = key.split(".")[1:]
    if parts[0] == "loss" and len(parts) == 3:
        loss = (value.get("loss") or {}).get(parts[1])
        if loss is None:
            return None
        if parts[2] in ("weight", "ramp", "taps"):
            return loss[parts[2]]
        return loss["options"].get(parts[2], defaults(parts[1]).get(parts[2]))
    for part in parts:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def options(stage: PlannedStage, values: Mapping[str, Any]) -> list[str]:
    """Settings as words for `--set`. A loss that is written as its weight alone gets a section first."""
    words = []
    for key, value in values.items():
        section, _, last = key.rpartition(".")
        if ".loss." in key and last != "weight" and f"{section}.weight" not in values:
            weight = current(stage, f"{section}.weight")
            words.append(f"{section}.weight={1.0 if weight is None else weight}")
        words.append(f"{key}={value}")
    return words


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections, for YAML."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


def _whole_path(rest: str) -> str:
    """`loss.dkd` is short for `loss.dkd.weight`."""
    return f"{rest}.weight" if rest.startswith("loss.") and rest.count(".") == 1 else rest


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _weight(key: str, weight: float) -> Axis:
    return Axis(key=key, low=weight * WEIGHT_RANGE[0], high=weight * WEIGHT_RANGE[1])


def _temperature(key: str) -> Axis:
    return Axis(key=key, low=TEMPERATURES[0], high=TEMPERATURES[1])
