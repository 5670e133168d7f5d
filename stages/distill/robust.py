"""Students that an attacker cannot mislead: the attack as a source of samples, and losses that use both images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ..contract import Preprocessing, Tokens
from ..splits import Split, loader
from .nouns import Batch, Need, Player, Samples, Step, Term
from .response import divergence, rows
from .settings import Attack
from .watching import answer

EVAL_BATCH = 256


class Attacked:
    """Samples that were changed against the player who is about to see them.

    x is the changed image; the teacher, and a loss that asks for a second view, get the unchanged one.
    """

    def __init__(
        self, samples: Samples, attack: Attack, preprocessing: Preprocessing | Tokens, *, needs: frozenset[Need]
    ) -> None:
        """needs: of the losses. StageError: these samples cannot be attacked."""
        if not isinstance(preprocessing, Preprocessing):
            raise StageError("attack moves pixels, and these samples are tokens: leave it out")
        if "classmate" in needs:
            raise StageError(
                "a loss asks for another image of the same class, and under attack the second is the "
                "unchanged image: leave out the loss or the attack"
            )
        self.samples, self.attack, self.preprocessing = samples, attack, preprocessing
        self.views = "view" in needs

    def begin(self, epoch: int) -> int:
        return self.samples.begin(epoch)

    def next(self, player: Player) -> Batch:
        batch = self.samples.next(player)
        if self.attack.objective == "kl":
            if not player.teachers:
                raise StageError("attack.objective kl drives the student from its teacher, and there is none: use ce")
            said = next(iter(player.teachers.values())).see(batch).logits
            worse = _from_teacher(said)
        else:
            if batch.y is None:
                raise StageError("attack.objective ce needs labels, and these images have none: use kl")
            worse = _from_label(batch.y)
        return self._with(batch, attacked(player.learner, batch.x, worse, self.attack, self.preprocessing))

    def probe(self) -> Batch:
        batch = self.samples.probe()
        return self._with(batch, batch.x)

    def _with(self, batch: Batch, x: Tensor) -> Batch:
        clean = batch.x if batch.teacher_x is None else batch.teacher_x
        return replace(batch, x=x, teacher_x=clean, view=batch.x if self.views else None)


def attacked(
    module: nn.Module, x: Tensor, worse: Callable[[Tensor], Tensor], attack: Attack, preprocessing: Preprocessing
) -> Tensor:
    """Images near `x` that drive `worse` of the network's logits up: projected ascent along the gradient's sign.

    Madry et al., 2018 (arXiv:1706.06083): from a random place in the box of `epsilon` around each pixel, `steps` steps
    of `step_size`, each clipped to the box and to the pixels that there are, 0 to 1. The network is in eval mode
    meanwhile, and its parameters get no gradient. x and the result are normalised images.
    """
    clean = preprocessing.pixels(x).detach()
    low, high = (clean - attack.epsilon).clamp(0, 1), (clean + attack.epsilon).clamp(0, 1)
    found = (clean + torch.empty_like(clean).uniform_(-attack.epsilon, attack.epsilon)).clamp(low, high)
    was_training = module.training
    module.eval()
    try:
        for _ in range(attack.steps):
            found.requires_grad_()
            with torch.enable_grad():
                loss = worse(answer(module, preprocessing.normalize(found)).logits)
            (gradient,) = torch.autograd.grad(loss, found)
            found = (found.detach() + attack.step_size * gradient.sign()).clamp(low, high)
    finally:
        module.train(was_training)
    return preprocessing.normalize(found)


def robust_logits(
    module: nn.Module, split: Split, attack: Attack, preprocessing: Preprocessing | Tokens, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Answers to images that were changed against their labels, and the labels; on the CPU."""
    assert isinstance(preprocessing, Preprocessing), "tokens are not attacked"
    was_training, device = module.training, next(module.parameters()).device
    module.eval()
    answers, labels = [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for images, targets, _ in loader(split, batch_size=EVAL_BATCH, shuffle=False, seed=0, epoch=0):
            x = preprocessing.normalize(images.to(device))
            worst = attacked(module, x, _from_label(targets.to(device)), attack, preprocessing)
            with torch.no_grad():
                answers.append(answer(module, worst).logits.cpu())
            labels.append(targets)
    module.train(was_training)
    return torch.cat(answers), torch.cat(labels)


def _from_teacher(said: Tensor) -> Callable[[Tensor], Tensor]:
    said = said.detach()
    return lambda logits: divergence(rows(logits), rows(said), temperature=1.0)


def _from_label(labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: F.cross_entropy(logits, labels)


class AdversariallyRobust(Term):
    """share T^2 KL(teacher(x) || student(x')) + (1 - share) CE(student(x), y), x' being x under attack.

    Goldblum et al., 2020 (ARD, arXiv:1905.09747). temperature 30 and share 1 are those of the authors' code, whose KL
    is divided by the number of classes as well; this one is not. Set `ce: 0`; it needs `attack`, whose objective the
    authors have as ce.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels", "view"})

    def __init__(self, *, temperature: float = 30.0, share: float = 1.0) -> None:
        super().__init__()
        self.temperature, self.share = temperature, share

    def forward(self, step: Step) -> Tensor:
        student, teacher = rows(step.student.logits), rows(step.teacher().logits)
        value = self.share * divergence(student, teacher, temperature=self.temperature)
        if self.share < 1:
            value = value + (1 - self.share) * F.cross_entropy(step.second().logits, step.labels())
        return value


class RobustSoftLabels(Term):
    """attacked KL(teacher(x) || student(x')) + (1 - attacked) KL(teacher(x) || student(x)), x' being x under attack.

    Zi et al., 2021 (RSLAD, arXiv:2108.07969): no label is used, neither here nor by the attack, whose objective is kl.
    attacked 5/6 is the authors'; their code divides by the number of classes as well, this one does not. Set `ce: 0`;
    it needs `attack`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "view"})

    def __init__(self, *, attacked: float = 5 / 6, temperature: float = 1.0) -> None:
        super().__init__()
        self.attacked, self.temperature = attacked, temperature

    def forward(self, step: Step) -> Tensor:
        teacher = rows(step.teacher().logits)
        misled, clean = (
            divergence(rows(said.logits), teacher, temperature=self.temperature)
            for said in (step.student, step.second())
        )
        return self.attacked * misled + (1 - self.attacked) * clean
