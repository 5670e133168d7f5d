"""What a teacher, and a student beside it, say about made images: the losses that a generator plays on answers."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ..distill.nouns import Need, Step, Term
from ..distill.response import above_zero, answers, each_divergence, one_of, rows

Apart = Literal["l1", "kl", "js"]
JS_TEMPERATURE = 3.0  # of adaptive competition in the reference code of DeepInversion


class Prior(Term):
    """A loss that says how much made images are like data, for a generator, or for pixels that are optimised.

    Its Step holds made images, normalised, as `batch.x`, with a gradient where it is not the student's turn, and
    `batch.y` the classes that were wanted, or None.
    """

    any_classes: ClassVar[bool | None] = True

    def remember(self) -> None:
        """Keep what the last batch told, for the batches that come: called once for each batch that is kept."""


class OneHot(Prior):
    """CE(z_t, y), y the class that was wanted, or the teacher's own answer argmax z_t where none was: be clear.

    Chen et al., 2019 (arXiv:1904.01186), DAFL. Usual weight: 1 on MNIST, 0.05 and 0.5 on CIFAR-10 and 100 (DAFL); 0.5
    to 1 in CMI (arXiv:2105.08584), 0.4 in FastDFKD (arXiv:2112.06253), 1 in DeepInversion (arXiv:1912.08795).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def build(self, probe: Step) -> None:
        _refuse_one_class(probe.teacher().logits)

    def forward(self, step: Step) -> Tensor:
        said = rows(step.teacher().logits)
        wanted = said.detach().argmax(dim=1) if step.batch.y is None else step.batch.y.reshape(-1)
        return F.cross_entropy(said, wanted)


class Balance(Prior):
    """sum over classes of p log10 p, p the mean of softmax(z_t) over the batch: make images of every class.

    The information entropy of Chen et al., 2019 (arXiv:1904.01186), DAFL, with the logarithm to base 10 of the
    reference code. It is lowest, -log10 C, where all classes are alike. Usual weight: 5 on MNIST and CIFAR-10, 20 on
    CIFAR-100.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def build(self, probe: Step) -> None:
        _refuse_one_class(probe.teacher().logits)

    def forward(self, step: Step) -> Tensor:
        said = F.log_softmax(rows(step.teacher().logits), dim=1)
        mean = torch.logsumexp(said, dim=0) - math.log(len(said))
        return (mean.exp() * mean).sum() / math.log(10)


class Activation(Prior):
    """-mean |f_t|, f what the teacher's classifier is given: images of data excite more filters than noise does.

    Chen et al., 2019 (arXiv:1904.01186), DAFL. Usual weight: 0.1 on MNIST and CIFAR-100, 0.01 on CIFAR-10.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    place: ClassVar[str | None] = "@pool"
    of_teacher: ClassVar[bool] = True

    def forward(self, step: Step) -> Tensor:
        feats = step.teacher().feats
        return -torch.stack([feats[tap].abs().mean() for _, tap in self.pairs]).mean()


class Disagreement(Prior):
    """How far the student is from the teacher. A generator wants it large: give it a negative weight.

    kind: `l1` is mean |z_s - z_t| over samples and classes, DFAD (Fang et al., 2019, arXiv:1912.11006), weight -1. `kl`
    is T^2 KL(softmax(z_t / T) || softmax(z_s / T)), summed over classes and averaged over samples, ZSKT (Micaelli &
    Storkey, 2019, arXiv:1905.09768), T 1, weight -1. `js` is the Jensen-Shannon divergence of the two softmaxes at T 3,
    from 0 to ln 2, the adaptive competition of DeepInversion (Yin et al., 2020, arXiv:1912.08795).

    where_equal: only images that both take for the same class count, and the rest count as 0: the decision boundary is
    explored, not images that are nothing. CMI (Fang et al., 2021, arXiv:2105.08584), weight -0.5, and FastDFKD (Fang et
    al., 2022, arXiv:2112.06253), weight -1 to -1.33 after the warm-up.

    The student is the one that learns now: with the teacher in its place the value is always 0, as in a reference
    implementation whose DAFL, DFAD and ZSKT fall short of the papers.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "models"})
    any_classes: ClassVar[bool | None] = False

    def __init__(self, *, kind: Apart = "l1", where_equal: bool = False, temperature: float | None = None) -> None:
        super().__init__()
        one_of(kind, get_args(Apart), option="kind")
        self.kind, self.where_equal = kind, where_equal
        self.temperature = temperature if temperature is not None else JS_TEMPERATURE if kind == "js" else 1.0
        above_zero(temperature=self.temperature)

    def build(self, probe: Step) -> None:
        if probe.learner is None:
            return
        for name in probe.teachers:
            module = probe.models.get(name)
            if module is not None and _are_one(probe.learner, module):
                raise StageError(
                    f"the student is its own teacher ({name}), or a copy with the same weights: the two never "
                    "disagree, so that a generator learns nothing from it. Give a student that has still to learn, or "
                    "leave it out"
                )

    def forward(self, step: Step) -> Tensor:
        student, teacher = answers(step)
        if self.kind == "l1":
            each = (student - teacher).abs().mean(dim=1)
        else:
            kind: Literal["forward", "js"] = "forward" if self.kind == "kl" else "js"
            each = each_divergence(student, teacher, temperature=self.temperature, kind=kind)
            if self.kind == "js":
                each = each / self.temperature**2
        if self.where_equal:
            each = each * (student.argmax(dim=1) == teacher.argmax(dim=1))
        return each.mean()


def _are_one(student: nn.Module, teacher: nn.Module) -> bool:
    """They share weights, or have the very same."""
    learned = {one.data_ptr() for one in student.parameters() if one.numel()}
    if any(one.data_ptr() in learned for one in teacher.parameters()):
        return True
    mine, theirs = student.state_dict(), teacher.state_dict()
    return mine.keys() == theirs.keys() and all(
        value.shape == theirs[name].shape and torch.equal(value.to(theirs[name].device), theirs[name])
        for name, value in mine.items()
    )


def _refuse_one_class(logits: Tensor) -> None:
    if rows(logits).shape[1] < 2:
        raise StageError("the teacher tells one number and no classes, of which an image could be a clear example")
