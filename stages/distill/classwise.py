"""Losses on what a network sees of each class: class activation maps, and an embedding for each label."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...targets.errors import StageError
from .adapters import as_map
from .classifiers import both_classifiers
from .nouns import Need, Step, Term
from .relation import distances, normalised
from .response import each_divergence
from .watching import bare


class _WithClassifiers(Term):
    """Looks at the weights of both classifiers: the student's as they are now, the teacher's as they were found."""

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "models"})
    theirs: Tensor

    def build(self, probe: Step) -> None:
        student, teacher = both_classifiers(probe, what="looks at the classifier's weights")
        self.name, mine, theirs = student.name, student.layer, teacher.layer
        for (tap, other), pair in zip(self.pairs, probe.pairs(self.pairs), strict=True):
            for whose, name, one, layer in (("student", tap, pair[0], mine), ("teacher", other, pair[1], theirs)):
                wide = one.shape[1] if one.ndim == 2 else as_map(one).shape[1]
                if wide != layer.in_features:
                    raise StageError(
                        f"the {whose}'s classifier weighs {layer.in_features} channels and {name} has {wide}: "
                        "tap the map whose mean the classifier is given"
                    )
        self.register_buffer("theirs", theirs.weight.detach().clone(), persistent=False)

    def weights(self, step: Step) -> tuple[Tensor, Tensor]:
        """(classes, channels) of the student, with a gradient, and of the teacher."""
        assert step.learner is not None, "a term without 'models' in its needs asked for the learner"
        mine = bare(step.learner).get_submodule(self.name).weight
        assert isinstance(mine, Tensor)
        return mine, self.theirs


class ClassActivationMaps(_WithClassifiers):
    """mean((n(M_s) - n(M_t))^2), M = W F: each class's activation map, n scales it to length 1.

    Zhang et al., 2023 (arXiv:2303.08360), for multi-label classification; only the abstract was read: scaling and mean
    are those of `catkd`, at the smaller network's resolution. Its weight must be tuned.
    """

    place: ClassVar[str | None] = "@map"
    any_classes: ClassVar[bool | None] = False
    size: ClassVar[int | None] = None
    scaled: bool = True

    def forward(self, step: Step) -> Tensor:
        mine, theirs = next(step.pairs(self.pairs))
        weights = self.weights(step)
        maps = [torch.einsum("kc,bchw->bkhw", w, as_map(f)) for w, f in zip(weights, (mine, theirs), strict=True)]
        high, wide = (self.size or min(one.shape[axis] for one in maps) for axis in (2, 3))
        student, teacher = (F.adaptive_avg_pool2d(one, (high, wide)).flatten(2) for one in maps)
        if self.scaled:
            student, teacher = F.normalize(student, dim=2), F.normalize(teacher, dim=2)
        return F.mse_loss(student, teacher.detach())


class AttentionOfClasses(ClassActivationMaps):
    """mean((A(M_s) - A(M_t))^2), M = W F the class activation maps, A their mean over 2 x 2 cells.

    Guo et al., 2023 (arXiv:2304.12777), CAT-KD. scaled: each map has length 1, as where attention alone is taught
    (CAT, with the weight 50 and no labels). Usual weight: 0.7 for ResNet-56 and ResNet-20, 15 for 32x4 and 8x4.
    """

    size: ClassVar[int | None] = 2

    def __init__(self, *, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled


class LabelWise(_WithClassifiers):
    """Per-label KL x 10 + class-aware x 100 + instance-aware x 1000 Huber distances of label-wise embeddings.

    Yang et al., 2023 (arXiv:2308.06453), L2D, for multi-label classification. KL: of each label's Bernoulli
    distribution, summed over labels, mean over the batch. Class-aware: for each label, distances between the
    embeddings of the samples that carry it, divided by their mean, as in RKD; instance-aware: the same between the
    labels that one sample carries. Each such Huber sum is divided by the number of its embeddings, then they are added
    up, and here divided by the batch. The authors have a head that makes an embedding for each label; any linear
    classifier has one too, and that is taken: e_bk = w_k * f_b, whose sum is the logit without its bias.
    labels: (batch, labels) of 0 and 1, or class indices. Usual weight: 1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "labels", "models"})
    place: ClassVar[str | None] = "@pool"

    def __init__(self, *, each: float = 10.0, classes: float = 100.0, instances: float = 1000.0) -> None:
        super().__init__()
        self.each, self.classes, self.instances = each, classes, instances

    def forward(self, step: Step) -> Tensor:
        student, teacher = step.student.logits, step.teacher().logits.detach()
        labels = step.labels()
        carried = (F.one_hot(labels, student.shape[1]) if labels.ndim == 1 else labels) > 0.5
        embeddings = [w * f.unsqueeze(1) for w, f in zip(self.weights(step), next(step.pairs(self.pairs)), strict=True)]
        mine, theirs = embeddings[0], embeddings[1].detach()  # (batch, labels, channels)
        by_class = _distances(mine.transpose(0, 1), theirs.transpose(0, 1), carried.T)
        by_sample = _distances(mine, theirs, carried)
        apart = each_divergence(_yes_or_no(student), _yes_or_no(teacher), temperature=1.0).sum(dim=1).mean()
        return self.each * apart + (self.classes * by_class + self.instances * by_sample) / len(student)


def _yes_or_no(logits: Tensor) -> Tensor:
    """(..., 2): each label as a question of its own, whose softmax is the label's sigmoid and the rest."""
    return torch.stack([logits, torch.zeros_like(logits)], dim=-1)


def _distances(student: Tensor, teacher: Tensor, carried: Tensor) -> Tensor:
    """The Huber distance between scaled distances within each group that has two members or more, added up.

    student, teacher: (groups, members, channels). carried: (groups, members), which members count.
    """
    total = student.new_zeros(())
    for group in (carried.sum(dim=1) > 1).nonzero().flatten().tolist():
        members = carried[group]
        mine, theirs = (normalised(distances(one[group][members]), "mean") for one in (student, teacher))
        total = total + F.smooth_l1_loss(mine, theirs, reduction="sum") / int(members.sum())
    return total
