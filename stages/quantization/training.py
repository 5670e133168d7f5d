"""Train a network with its rounding in place: in one go, or in the three phases of QKD."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from torch import nn

from ...targets.errors import StageError
from ..artifact import Artifact, Context
from ..checkpoint import Curves, Trained
from ..distill.settings import Loss
from ..distill.teachers import choose
from ..evaluation import quality
from ..progress import Progress
from ..quantize import Quantize
from ..teaching import teach
from .learned import scales
from .switching import resting_norms, switch_

PHASES = ("self-studying", "co-studying", "tutoring")


def train_(
    module: nn.Module, settings: Quantize, artifact: Artifact, context: Context
) -> tuple[Curves, dict[str, float]]:
    """Train a prepared and calibrated network and leave it in its best epoch; returns curves and figures.

    Gradients are those at the rounded weights, and change the float weights behind them: with a teacher's loss this is
    the quantised distillation of Polino et al., 2018 (arXiv:1802.05668, algorithm 1).
    """
    training = _Training(module=module, settings=settings, artifact=artifact, context=context)
    with ExitStack() as around:
        if not training.is_real or settings.trains == "ranges":
            around.enter_context(resting_norms(module))
        if settings.trains == "ranges":
            around.callback(_only_scales_(module))
        if settings.phases == "qkd":
            training.in_phases()
        else:
            training.go(settings, teacher=artifact.module)
    switch_(module, epoch=settings.epochs, epochs=settings.epochs)
    return training.whole.curves, {**training.figures, "best_epoch": training.whole.best_epoch}


@dataclass(kw_only=True)
class _Training:
    """gone: epochs of parts that ended. whole: of all parts together."""

    module: nn.Module
    settings: Quantize
    artifact: Artifact
    context: Context
    gone: int = 0
    whole: Trained = field(default_factory=Trained)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def is_real(self) -> bool:
        return self.context.data.synthetic is None

    @property
    def known(self) -> dict[str, nn.Module]:
        """What the words for teachers mean here."""
        return {"model": self.artifact.original.module, "float": self.artifact.module}

    def go(
        self,
        lesson: Quantize,
        *,
        teacher: nn.Module | None,
        context: Context | None = None,
        peers: Sequence[nn.Module] = (),
    ) -> None:
        """One part. peers: learn beside the network, and never take its place."""
        begun, norms_learn = self.gone, self.is_real and self.settings.trains == "all"
        trained, figures = teach(
            self.module,
            lesson,
            context or self.context,
            teacher=teacher,
            known=self.known,
            full_precision=True,  # bfloat16 has no more steps than the grid that is being learned
            before_epoch=lambda epoch: switch_(
                self.module, epoch=begun + epoch, epochs=self.settings.epochs, norms_learn=norms_learn
            ),
            images=self.context.data.train,  # those that there are: a generator would have to learn the grid's errors
            peers=peers,
            peers_may_win=False,
        )
        for epoch in range(lesson.epochs):
            self.whole.add({name: curve[epoch] for name, curve in trained.curves.items()}, epoch=begun + epoch)
        if trained.best_epoch:
            self.whole.best_epoch = begun + trained.best_epoch
        self.gone += lesson.epochs
        self.figures.update(figures)

    def in_phases(self) -> None:
        """QKD, Kim et al., 2019 (arXiv:1911.12491).

        Self-studying: the quantised network learns by itself, L = CE. Co-studying: it and its tutor, a float network,
        learn from each other, L = CE + T² KL for each. Tutoring: the tutor holds still. Where no label counts, what the
        untouched teacher answers stands for it: its class in the first phase, its probabilities in the second, without
        which the two would have nothing to hold on to but each other.
        """
        teacher, settings = self._teacher(), self.settings
        tutor = copy.deepcopy(teacher)
        has_labels = settings.ce > 0 and self.is_real
        if settings.ce > 0 and not has_labels:
            self.context.note("ce is left out: without data the teacher stands for the labels, in each phase of qkd")
        alone, together, tutored = (
            replace(settings, epochs=epochs, phases="none", teacher=None, ce=settings.ce if has_labels else 0.0)
            for epochs in phase_epochs(settings.epochs)
        )
        by_itself = replace(alone, loss={"ce": Loss(weight=settings.ce)} if has_labels else self._hard())
        fixed = None if has_labels else teacher
        self._phase(0, by_itself, teacher=fixed)
        with ExitStack() as around:
            if not self.is_real:
                around.enter_context(resting_norms(tutor))
            self._phase(1, together, teacher=fixed, peers=[tutor])
        self._phase(2, tutored, teacher=tutor.eval())

    def _phase(
        self, number: int, lesson: Quantize, *, teacher: nn.Module | None, peers: Sequence[nn.Module] = ()
    ) -> None:
        name, context = PHASES[number], self.context
        progress = _Part(context.progress, name, begin=self.gone, epochs=lesson.epochs, of=self.settings.epochs)
        part = replace(context, work=context.work / name, progress=progress, teachers={})
        self.go(lesson, teacher=teacher, context=part, peers=peers)
        after = quality(self.module, context.data.val, context.data)
        self.figures[f"validation_after_{name.replace('-', '_')}"] = after

    def _hard(self) -> Mapping[str, Loss] | None:
        """The teacher's class; of tasks whose answers are no classes, its answer."""
        task = self.context.data.task
        return {"hard": Loss()} if task.kd == "kd" else None

    def _teacher(self) -> nn.Module:
        """Whose copy becomes the tutor."""
        chosen = choose(self.settings, self.context, default=self.artifact.module, known=self.known)
        networks = [one for one in chosen.values() if isinstance(one, nn.Module)]
        if len(chosen) != 1 or not networks:
            raise StageError(
                f"quantize.phases: qkd has one tutor, a network of its own, and here are {', '.join(chosen)}: name one"
            )
        return networks[0]


def phase_epochs(epochs: int) -> tuple[int, int, int]:
    """Of each phase: a quarter, a quarter, and what is left, one at least."""
    first = max(1, epochs // 4)
    return first, first, epochs - 2 * first


@dataclass(frozen=True)
class _Part:
    """The progress of one phase as that of the whole."""

    progress: Progress
    name: str
    begin: int
    epochs: int
    of: int

    def update(self, share: float, text: str) -> None:
        self.progress.update((self.begin + share * self.epochs) / self.of, f"{self.name}  {text}")


def _only_scales_(module: nn.Module) -> Callable[[], None]:
    """Let nothing learn but scales; returns what undoes that."""
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.requires_grad_(False)
    for scale in scales(module):
        scale.requires_grad_(True)

    def undo() -> None:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

    return undo
