"""The limits of a budget that pruning can work towards, as shares of what the unpruned network takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .bench import Seen

MIB = 2**20
Resource = Literal["time", "size", "memory"]
RESOURCES: Mapping[str, Resource] = {"latency_ms": "time", "speedup": "time", "size_mb": "size", "memory_mb": "memory"}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far one candidate comes towards one limit. share, most: of what the float baseline takes (time) or the
    unpruned network in its form (size, memory), and the end of the interval that counts; limit: what they may be."""

    goal: str
    share: float
    most: float
    limit: float
    value: float  # in the unit of the goal

    @property
    def is_met(self) -> bool:
        return self.most <= self.limit

    def facts(self) -> dict[str, Any]:
        return {"goal": self.goal, "value": self.value, "share": self.share, "most": self.most, "limit": self.limit,
                "met": self.is_met}  # fmt: skip


def reach(goals: Mapping[str, float], seen: Seen, whole: Seen) -> list[Reach]:
    """Each limit against what was measured. whole: the unpruned network in the same form."""
    found = []
    for goal, limit in goals.items():
        if goal == "speedup":
            found.append(Reach(goal=goal, share=seen.share, most=seen.high, limit=1 / limit, value=1 / seen.share))
        elif goal == "latency_ms":
            base = seen.baseline_ms
            found.append(
                Reach(goal=goal, share=seen.ms / base, most=seen.most_ms / base, limit=limit / base, value=seen.ms)
            )
        elif goal == "size_mb":
            share = seen.size_bytes / whole.size_bytes
            found.append(
                Reach(goal=goal, share=share, most=share, limit=limit * MIB / whole.size_bytes,
                      value=seen.size_bytes / MIB)
            )  # fmt: skip
        elif goal == "memory_mb" and seen.memory_mb and whole.memory_mb:
            share = seen.memory_mb / whole.memory_mb
            found.append(Reach(goal=goal, share=share, most=share, limit=limit / whole.memory_mb, value=seen.memory_mb))
    return found
