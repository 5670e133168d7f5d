"""Losses on what tokens attend to: attention itself, and relations between queries, keys and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from ...targets.errors import StageError
from .language import token_mask
from .nouns import Need, Pair, Step, Term
from .response import average, each_divergence, one_of
from .taps import heads_at

Form = Literal["logits", "probabilities"]
Relation = Literal["queries", "keys", "values", "attention"]
SIDES: dict[Relation, tuple[int, int]] = {"queries": (0, 0), "keys": (1, 1), "values": (2, 2), "attention": (0, 1)}
NEVER = -1e30  # a score that no softmax sees; finite, so that nothing becomes NaN


def scores(left: Tensor, right: Tensor, heads: int) -> Tensor:
    """(batch, heads, length, length): left right^T / sqrt(width of a head). left, right: (batch, length, width)."""
    one, other = (side.reshape(*side.shape[:2], heads, -1).transpose(1, 2) for side in (left, right))
    return one @ other.transpose(2, 3) / math.sqrt(one.shape[3])


def divergence_of(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """KL(teacher || student) of the softmax over tokens, averaged over heads and tokens that count.

    student, teacher: scores. mask: (batch, length).
    """
    if mask is not None:
        unseen = ~mask.bool()[:, None, None, :]
        student, teacher = student.masked_fill(unseen, NEVER), teacher.masked_fill(unseen, NEVER)
    each = each_divergence(student, teacher, temperature=1.0)
    return average(each if mask is None else each.transpose(1, 2)[mask.bool()])


class _OfAttention(Term):
    """What losses on attention share: taps in groups, one group for each layer.

    group: how many taps make a layer.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "models"})
    group: ClassVar[int]

    def build(self, probe: Step) -> None:
        if not self.pairs or len(self.pairs) % self.group:
            wanted = "queries and keys" if self.group == 2 else "queries, keys and values"
            raise StageError(f"the taps of an attention are its {wanted}, layer by layer; {len(self.pairs)} are given")
        for (mine, theirs), pair in zip(probe.pairs(self.pairs), self.pairs, strict=True):
            if mine.ndim != 3 or theirs.ndim != 3 or mine.shape[1] != theirs.shape[1]:
                raise StageError(
                    f"attention is compared token by token, (batch, length, width), and {' and '.join(pair)} are of "
                    f"the shapes {tuple(mine.shape)} and {tuple(theirs.shape)}: tap projections of the same text"
                )

    def layers(self, step: Step) -> list[tuple[list[Tensor], list[Tensor], Tensor | None]]:
        """For each layer the student's projections, the teacher's, and which tokens count."""
        seen = list(step.pairs(self.pairs))
        found = []
        for first in range(0, len(seen), self.group):
            mine, theirs = (list(side) for side in zip(*seen[first : first + self.group], strict=True))
            found.append((mine, theirs, token_mask(theirs[0], step.batch.mask)))
        return found


class Attention(_OfAttention):
    """sum over layers of mean((A_s - A_t)^2), A = Q K^T / sqrt(d) of each head, before the softmax.

    TinyBERT: Jiao et al., 2019 (arXiv:1909.10351). form: `logits` as above, the paper's choice, or
    `probabilities`, the divergence of what the softmax makes of them. heads: how many each network has; none: as its
    modules say. Student and teacher must have the same number; attention_relation does without.
    """

    place: ClassVar[str | None] = "@att"
    group: ClassVar[int] = 2

    def __init__(self, *, form: Form = "logits", heads: int | None = None) -> None:
        super().__init__()
        one_of(form, get_args(Form), option="form")
        self.form, self.heads = form, heads

    def build(self, probe: Step) -> None:
        super().build(probe)
        self.counts = [self._heads(probe, pair) for pair in self.pairs[:: self.group]]

    def forward(self, step: Step) -> Tensor:
        values = []
        for (mine, theirs, mask), heads in zip(self.layers(step), self.counts, strict=True):
            student, teacher = scores(mine[0], mine[1], heads), scores(theirs[0], theirs[1], heads)
            if self.form == "probabilities":
                values.append(divergence_of(student, teacher, mask))
                continue
            gap = (student - teacher).square().movedim(1, 3)
            both = None if mask is None else mask.bool().unsqueeze(1) & mask.bool().unsqueeze(2)
            values.append(average(gap if both is None else gap[both]))
        return torch.stack(values).sum()

    def _heads(self, probe: Step, pair: Pair) -> int:
        if self.heads is not None:
            return self.heads
        name = next(iter(probe.teachers))
        networks = probe.learner, probe.models.get(name)
        told = [None if net is None else heads_at(net, tap) for net, tap in zip(networks, pair, strict=True)]
        if told[0] is None or told[1] is None:
            raise StageError(f"modules do not say how many heads attend at {' and '.join(pair)}: set heads")
        if told[0] != told[1]:
            raise StageError(
                f"the student has {told[0]} heads at {pair[0]} and the teacher {told[1]} at {pair[1]}: heads are "
                "compared one by one; use attention_relation, which needs no equal number"
            )
        return told[0]


class AttentionRelation(_OfAttention):
    """mean over relations of KL(softmax(X_t X_t^T / sqrt(d)) || softmax(X_s X_s^T / sqrt(d))), X = Q, K and V.

    MiniLMv2: Wang et al., 2020 (arXiv:2012.15828). The projections of all heads are joined and divided anew into
    `heads` relation heads, whose number need not be that of either network; 12 unless only a
    smaller number divides both widths. relations: of queries, keys, values, or `attention`, Q K^T. Each counts alike.
    The last layer of both networks; `taps: "@qkv#3"` takes another. MLKD-BERT (arXiv:2407.02775) distils relations of
    this kind too.
    """

    place: ClassVar[str | None] = "@qkv#-1"
    group: ClassVar[int] = 3

    def __init__(self, *, relations: Sequence[Relation] = ("queries", "keys", "values"), heads: int = 12) -> None:
        super().__init__()
        for relation in relations:
            one_of(relation, SIDES, option="relations")
        if not relations or heads < 1:
            raise ValueError("it takes at least one relation and one head")
        self.relations, self.heads = tuple(relations), heads

    def forward(self, step: Step) -> Tensor:
        values = []
        for mine, theirs, mask in self.layers(step):
            heads = self._divided(mine[0].shape[2], theirs[0].shape[2])
            for relation in self.relations:
                one, other = SIDES[relation]
                student = scores(mine[one], mine[other], heads)
                values.append(divergence_of(student, scores(theirs[one], theirs[other], heads), mask))
        return torch.stack(values).sum() / len(self.relations)

    def _divided(self, *widths: int) -> int:
        """The largest number of heads, up to the wanted one, that divides both widths."""
        return next(heads for heads in range(self.heads, 0, -1) if not any(width % heads for width in widths))
