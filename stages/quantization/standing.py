"""Does a network meet the budget of accuracy, as far as the validation samples tell?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import nn

from ...targets.profiles import Budget
from ..artifact import Context
from ..evaluation import logits
from ..metrics import Metric


@dataclass(frozen=True, kw_only=True)
class Standing:
    """meets: by the figure itself, as variants are chosen. surely: its whole 95 % interval does."""

    value: float
    drop: float
    drop_ci95: tuple[float, float]
    meets: bool
    surely: bool

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"accuracy": self.value, "drop": self.drop, "drop_ci95": list(self.drop_ci95), "surely": self.surely}

    def words(self) -> str:
        low, high = self.drop_ci95
        return f"{self.value:.2f} % on the validation samples (drop {self.drop:+.2f}, {low:+.2f} to {high:+.2f})"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What is asked of a network: the budget, and how the original model answers the same samples."""

    budget: Budget
    metric: Metric
    before: NDArray[Any]
    labels: NDArray[Any]

    def judge(self, module: nn.Module, context: Context) -> Standing:
        answers, _ = logits(module, context.data.deciding, context.data.preprocessing)
        facts = self.metric.facts(answers.numpy(), self.labels, self.before)
        value, drop = float(facts["value"]), float(facts["drop"])
        low, high = (float(end) for end in facts["drop_ci95"])
        least, most = self.budget.accuracy, self.budget.accuracy_drop
        meets = (least is None or value >= least) and (most is None or drop <= most)
        sure = (least is None or float(facts["ci95"][0]) >= least) and (most is None or high <= most)
        return Standing(value=value, drop=drop, drop_ci95=(low, high), meets=meets, surely=meets and sure)


def bar(original: nn.Module, context: Context) -> Bar | None:
    """None: the budget does not limit accuracy."""
    budget = context.budget
    if budget is None or (budget.accuracy is None and budget.accuracy_drop is None):
        return None
    answers, labels = logits(original, context.data.deciding, context.data.preprocessing)
    return Bar(budget=budget, metric=context.data.task.judge(), before=answers.numpy(), labels=labels.numpy())
