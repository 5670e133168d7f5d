"""What a network's answers mean: which losses teach them, which figure judges them. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .distill.settings import Loss
    from .lesson import Lesson
    from .metrics import Metric

IGNORED = -100  # a label that does not count, as torch writes it: padding, or a pixel that nobody labelled
TaskName = Literal["classification", "multilabel", "segmentation", "text", "tokens", "regression"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of job.

    takes: what goes in, pixels or numbers of tokens. samples: what the report calls what goes in. ce, kd: the losses
    that stand where a recipe says ce and kd. metric: the figure that a budget limits, in per cent, higher is better;
    `metrics.py` computes it.
    """

    name: TaskName
    takes: Literal["images", "tokens"] = "images"
    samples: str = "images"
    ce: str = "ce"
    kd: str = "kd"
    softens: bool = True  # whether the loss in kd's place has a temperature
    metric: str = "accuracy"

    @property
    def has_one_class_each(self) -> bool:
        """One class index for each sample: such samples can be divided with every class in every part."""
        return self.name in ("classification", "text")

    def answer_shape(self, count: int, *, classes: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the answers to so many samples. shape: of one sample."""
        if self.name == "segmentation":
            return (count, classes, *shape[1:])
        return (count, *shape, classes) if self.name == "tokens" else (count, classes)

    def lesson(self, lesson: Lesson) -> Lesson:
        """The same lesson with this task's own losses for ce and kd."""
        if lesson.loss is not None or (self.ce, self.kd) == ("ce", "kd"):
            return lesson
        own = {self._own(name): self._fitted(name, loss) for name, loss in lesson.losses().items()}
        return replace(lesson, loss=own)

    def _own(self, name: str) -> str:
        return {"ce": self.ce, "kd": self.kd}.get(name, name)

    def _fitted(self, name: str, loss: Loss) -> Loss:
        return replace(loss, options={}) if name == "kd" and not self.softens else loss

    def judge(self) -> Metric:
        """Who computes the figure."""
        from .metrics import METRICS

        return METRICS[self.name]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(name="classification"),
        Task(name="multilabel", ce="bce", kd="bkd", metric="mAP"),
        Task(name="segmentation", metric="mIoU"),
        Task(name="text", takes="tokens", samples="texts"),
        Task(name="tokens", takes="tokens", samples="texts", metric="macro F1"),
        Task(name="regression", ce="mse", kd="logits", softens=False, metric="R²"),
    )
}
CLASSIFICATION = TASKS["classification"]
