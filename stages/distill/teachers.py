"""Who teaches: the networks and words that a recipe names, made into teachers of one training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...targets.errors import StageError
from .cache import keep_answers, read_share
from .examining import examine
from .nouns import Lasting, Teacher
from .sources import Average, Frozen, PreviousEpoch, Snapshot
from .teacher_settings import by_name

if TYPE_CHECKING:
    from ..artifact import Context
    from ..crew import Crew
    from ..lesson import Lesson

Chosen = Mapping[str, nn.Module | str]  # by name: a network, or a word for one that is made of the student itself

OWN: Mapping[str, Callable[[nn.Module], Teacher]] = {"ema": Average, "snapshot": Snapshot, "previous": PreviousEpoch}


@dataclass(frozen=True, kw_only=True)
class Staff:
    """The teachers of a training. hired: those that are networks of their own. examined: how good they are."""

    chosen: Chosen
    hired: Mapping[str, Teacher]
    examined: Mapping[str, float]

    def of(self, network: nn.Module) -> dict[str, Teacher]:
        """One network's teachers in the order in which they were chosen: those hired, and those made of itself."""
        return {
            name: OWN[who](network) if isinstance(who, str) else self.hired[name] for name, who in self.chosen.items()
        }

    @property
    def has_own(self) -> bool:
        """One of them is made of the student itself."""
        return any(isinstance(who, str) for who in self.chosen.values())

    def figures(self) -> dict[str, float]:
        """For the report: how good they are, and the share of their answers that did not have to be computed."""
        share = read_share(self.hired)
        return {**self.examined, **({} if share is None else {"teacher_answers_read_share": round(share, 4)})}


def staff(
    student: nn.Module,
    lesson: Lesson,
    context: Context,
    *,
    default: nn.Module | Chosen | None,
    known: Mapping[str, nn.Module],
    crew: Crew,
    samples: Lasting | None,
    precision: str,
) -> Staff:
    """Choose the teachers, examine those that were named, and keep the answers of those that never change.

    default: for where neither recipe nor lesson names anybody; a bare network is trusted. known: what the words
    `model` and `float` mean here. StageError: somebody cannot teach this student.
    """
    chosen = choose(lesson, context, default=default, known=known)
    hired = hire(chosen, student, device=crew.device)
    trusted = isinstance(default, nn.Module) and not context.teachers and lesson.teacher is None
    examined: dict[str, float] = {}
    if hired and not trusted:
        networks = {name: teacher.module for name, teacher in hired.items() if teacher.module is not None}
        examined = examine(networks, student, context.data, refuse=lesson.check_teacher)
        words = "  ".join(f"{name.replace('_', ' ')} {figure:.1f} %" for name, figure in examined.items())
        context.progress.update(0.0, words)
    return Staff(
        chosen=chosen,
        hired=keep_answers(
            hired,
            "off" if crew.count > 1 else lesson.cache,  # each process sees its part of the samples alone
            folder=context.cache,
            samples=samples,
            precision=precision,
            note=context.note,
        ),
        examined=examined,
    )


def choose(
    lesson: Lesson, context: Context, *, default: nn.Module | Chosen | None, known: Mapping[str, nn.Module]
) -> Chosen:
    """The teachers of this training: those that were opened for its stage, else the lesson's words, else the default.

    StageError: a word means nothing here.
    """
    chosen: Chosen = context.teachers or {name: one.source for name, one in by_name(lesson.teacher or ()).items()}
    if not chosen and default is not None:
        chosen = {"teacher": default} if isinstance(default, nn.Module) else default
    found = {name: known.get(who, who) if isinstance(who, str) else who for name, who in chosen.items()}
    for name, who in found.items():
        if isinstance(who, str) and who not in OWN:
            raise StageError(
                f"the teacher {name}: {who!r} is not opened here. A training that no recipe drives takes networks, "
                f"teacher={{{name!r}: network}}, or the words {', '.join(OWN)}."
            )
    return found


def hire(chosen: Chosen, student: nn.Module, *, device: torch.device) -> dict[str, Teacher]:
    """Copies of the networks among them, on the device, that will never learn.

    StageError: one of them is the student itself.
    """
    found: dict[str, Teacher] = {}
    learned = {parameter.data_ptr() for parameter in student.parameters() if parameter.numel()}
    for name, who in chosen.items():
        if isinstance(who, str):
            continue
        if who is student or any(parameter.data_ptr() in learned for parameter in who.parameters()):
            raise StageError(
                f"the teacher {name} is the student itself, or shares weights with it: nothing could be learned from "
                "it. Give another network, or one of the words snapshot, previous, ema."
            )
        copied = copy.deepcopy(who).requires_grad_(False)
        # As students are laid out in memory: a fifth faster in float32 on CPUs.
        found[name] = Frozen(copied.to(device=device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    return found
