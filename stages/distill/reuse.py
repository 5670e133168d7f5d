"""Give the student its teacher's classifier, and teach it the features that this classifier wants."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .adapters import meet
from .classifiers import Classifier, both_classifiers
from .nouns import Need, Step, Term
from .watching import answer, bare, still

NEAR = 1e-4  # relative: what the classifier is given is the mean of the map, or another value altogether


class ReusedClassifier(Term):
    """mean((P F_s - F_t)^2), P a linear map to the teacher's width; the student answers with the teacher's classifier.

    Chen et al., 2022 (arXiv:2203.14001), SimKD. Before the student is evaluated and kept, P and the teacher's
    classifier W f + b become one: W P and W p + b are written into the student's own last layer, so nothing is added
    to it. The paper's P is three convolutions with batch norm and ReLU between them, which stay in the student and cost
    time at inference; they cannot be folded and are not offered. Give no other loss a weight: its work on the last
    layer would be overwritten. Default place: what the classifiers are given. With taps: "@map" the maps before
    pooling are compared, as in the paper, where the student's classifier is given their mean. Usual weight: 1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "models"})
    place: ClassVar[str | None] = "@pool"
    weight: Tensor
    bias: Tensor

    def build(self, probe: Step) -> None:
        student, teacher = both_classifiers(probe, what="takes over the teacher's classifier")
        self.name, mine, theirs = student.name, student.layer, teacher.layer
        if len(self.pairs) != 1:
            raise StageError(f"it needs one pair of taps and not {len(self.pairs)}")
        for whose, tap, one in zip(("student", "teacher"), self.pairs[0], (student, teacher), strict=True):
            _check_pooled(one, tap, whose)
        if mine.bias is None and theirs.bias is not None:
            raise StageError(f"the teacher's classifier has a bias and the student's, {self.name}, has no place for it")
        self.projector = nn.Linear(mine.in_features, theirs.in_features, bias=mine.bias is not None)
        self.register_buffer("weight", theirs.weight.detach().clone(), persistent=False)
        self.register_buffer("bias", _bias(theirs), persistent=False)

    def forward(self, step: Step) -> Tensor:
        mine, theirs = meet(*next(step.pairs(self.pairs)))
        return F.mse_loss(self.projector(_channels_last(mine)), _channels_last(theirs.detach()))

    def settle(self, learner: nn.Module) -> None:
        layer = bare(learner).get_submodule(self.name)
        assert isinstance(layer, nn.Linear)
        with torch.no_grad():
            layer.weight.copy_(self.weight @ self.projector.weight)
            if layer.bias is not None:
                layer.bias.copy_(self.weight @ self.projector.bias + self.bias)


def _check_pooled(classifier: Classifier, tap: str, whose: str) -> None:
    """StageError: the classifier is given neither what the tap sees nor the mean of it."""
    name = classifier.name
    with still(classifier.network):
        feats = answer(classifier.network, classifier.x, list({tap, f"{name}:in"})).feats
    seen = _channels_last(feats[tap])
    seen = seen.mean(dim=(1, 2)) if seen.ndim == 4 else seen
    given = feats[f"{name}:in"]
    if seen.shape != given.shape or (seen - given).abs().max() > NEAR * given.abs().max():
        raise StageError(
            f"the {whose}'s classifier {name} is given something else than the mean of {tap}: take taps: '@pool'"
        )


def _channels_last(features: Tensor) -> Tensor:
    return features.movedim(1, -1) if features.ndim == 4 else features


def _bias(layer: nn.Linear) -> Tensor:
    return torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach().clone()
