"""Losses of language models: hidden states token by token, and sentences that the teacher would write."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from ..tasks import IGNORED
from .contrastive import embedding
from .nouns import Need, Step
from .pairing import Adapted
from .response import Imitation, average, each_divergence, one_of, rows

Targets = Literal["teacher", "labels"]


def token_mask(features: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask where it is one of these tokens, (batch, length); None where all of them count."""
    return mask if mask is not None and mask.shape == features.shape[:-1] else None


class OverTokens(Adapted):
    """Features compared token by token, where the mask lets them count.

    one_adapter: all layers share it.
    """

    one_adapter: ClassVar[bool] = False

    def build(self, probe: Step) -> None:
        for (mine, theirs), pair in zip(probe.pairs(self.pairs), self.pairs, strict=True):
            if mine.shape[:-1] != theirs.shape[:-1]:
                raise StageError(
                    f"hidden states are compared token by token, and {' and '.join(pair)} are of the shapes "
                    f"{tuple(mine.shape)} and {tuple(theirs.shape)}: both networks must be shown tokens of one length"
                )
        super().build(probe)
        widths = {(mine.shape[-1], theirs.shape[-1]) for mine, theirs in probe.pairs(self.pairs)}
        if self.one_adapter and len(widths) == 1:
            self.adapters = self.adapters[:1]

    def forward(self, step: Step) -> Tensor:
        values = []
        for index, (mine, theirs) in enumerate(step.pairs(self.pairs)):
            mask = token_mask(theirs, step.batch.mask)
            values.append(self.compare(rows(mine, mask), rows(theirs.detach(), mask), index))
        return torch.stack(values).sum()

    def compare(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        return super().compare(student, teacher, index if len(self.adapters) > 1 else 0)


class Cosine(OverTokens):
    """mean over tokens of 1 - cos(h_s, h_t), h being hidden states of the last layer.

    The cosine term of DistilBERT: Sanh et al., 2019 (arXiv:1910.01108). Its triple loss is this one with kd (T 2) and
    ce over the masked words, with the weights 1, 5 and 2 in the authors' code: {cosine: 1, kd: {weight: 5, temperature:
    2}, ce: 2}, after the student was given every second layer of its teacher. Widths that differ are joined by a linear
    layer, which is ours.
    """

    place: ClassVar[str | None] = "@hidden#-1"

    def distance(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        return average(1 - F.cosine_similarity(student, teacher, dim=-1))


class HiddenStates(OverTokens):
    """sum over layers of mean((W h_s - h_t)^2), W one linear layer for all of them; none where the widths agree.

    TinyBERT: Jiao et al., 2019 (arXiv:1909.10351). The student's layers are spread evenly over the
    teacher's, the last with the last, as in its code. Tokens outside the mask do not count.
    """

    place: ClassVar[str | None] = "@hidden"
    one_adapter: ClassVar[bool] = True

    def distance(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        return average((student - teacher).square())


class Embeddings(HiddenStates):
    """mean((W e_s - e_t)^2), e being what the first layer is given: words and their places.

    TinyBERT: Jiao et al., 2019 (arXiv:1909.10351).
    """

    place: ClassVar[str | None] = "@embeddings"


class Sequence(Imitation):
    """-sum over a sentence of log p_s(its next token), averaged over sentences; the tokens are the teacher's.

    Sequence-level distillation: Kim & Rush, 2016 (arXiv:1606.07947). targets: `teacher` takes the likeliest token at
    each position, the mode of a teacher that reads the same text; `labels` takes the data's, for data whose targets the
    teacher has written, by beam search for instance. per_token: the mean over a sentence in place of the sum, so that
    the weight does not depend on the length. The token-level form, a divergence at each position, is the loss kd.
    """

    def __init__(self, *, targets: Targets = "teacher", per_token: bool = True) -> None:
        super().__init__()
        one_of(targets, get_args(Targets), option="targets")
        self.targets, self.per_token = targets, per_token

    def build(self, probe: Step) -> None:
        super().build(probe)
        if probe.student.logits.ndim != 3:
            raise StageError(
                f"sentences have an answer for each token, (batch, length, classes), and the student answers in the "
                f"shape {tuple(probe.student.logits.shape)}: use kd or hard"
            )
        if self.targets == "labels" and probe.batch.y is None:
            raise StageError("targets: labels needs labels, and these data have none: take targets: teacher")

    def forward(self, step: Step) -> Tensor:
        return self.sentences(step).mean()

    def sentences(self, step: Step) -> Tensor:
        """(batch,): the loss of each sentence."""
        said = step.student.logits
        target = step.labels() if self.targets == "labels" else step.teacher().logits.argmax(dim=-1)
        each = F.cross_entropy(said.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none")
        counts = counted(step) & (target != IGNORED)
        return over_sentence(each.view_as(target), counts, mean=self.per_token)


def counted(step: Step) -> Tensor:
    """(batch, length): the tokens that count."""
    mask = step.batch.mask
    places = step.student.logits.shape[:2]
    return torch.ones(places, dtype=torch.bool, device=step.student.logits.device) if mask is None else mask.bool()


def over_sentence(values: Tensor, counts: Tensor, *, mean: bool) -> Tensor:
    """(batch,) of (batch, length): the sum, or the mean, of the tokens that count; 0 where none does."""
    total = torch.where(counts, values, 0.0).sum(dim=1)
    return total / counts.sum(dim=1).clamp(min=1) if mean else total


class Hybrid(Sequence):
    """mean over sentences of g * L_sentence + (1 - g) * L_token, g a gate that learns.

    Wei et al., 2024 (arXiv:2404.14827): the abstract tells of a gate that combines both forms; the rest is ours. The
    gate is floor + (1 - 2 floor) sigmoid(w h + b), h being the mean of what the classifier is given for the sentence,
    held still so that the student does not learn to please its gate; it begins at one half. A gate left alone would
    close on the harder loss for good: neither share falls below `floor`. Both losses are means over tokens.
    """

    place: ClassVar[str | None] = "@pool"
    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def __init__(self, *, targets: Targets = "teacher", temperature: float = 1.0, floor: float = 0.1) -> None:
        super().__init__(targets=targets)
        if not 0 <= floor < 0.5:
            raise ValueError(f"floor is {floor}; it is from 0 to below 0.5")
        self.temperature, self.floor = temperature, floor

    def build(self, probe: Step) -> None:
        super().build(probe)
        read = self._read(probe)
        self.gate = nn.Linear(read.shape[1], 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, step: Step) -> Tensor:
        each = each_divergence(step.student.logits, step.teacher().logits, temperature=self.temperature)
        tokens = over_sentence(each, counted(step), mean=True)
        share = self.share(step)
        return (share * self.sentences(step) + (1 - share) * tokens).mean()

    def share(self, step: Step) -> Tensor:
        """(batch,): how much the sentence's form counts."""
        gate: Tensor = self.gate(self._read(step)).squeeze(1).sigmoid()
        return self.floor + (1 - 2 * self.floor) * gate

    def _read(self, step: Step) -> Tensor:
        return embedding(step.student.feats[self.pairs[0][0]], counted(step)).detach()
