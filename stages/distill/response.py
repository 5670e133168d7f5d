"""Losses on the answers alone: the task's own, and imitation of a teacher's logits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ...targets.errors import StageError
from ..tasks import IGNORED
from .nouns import Need, Step, Term

Kind = Literal["forward", "reverse", "js", "tv", "adaptive"]
Combine = Literal["each", "probabilities", "logits"]
HEAD = 0.5  # the adaptive divergence: the classes that hold this share of the teacher's belief
Z_EPS = 1e-7  # as in the reference code of logit standardisation


def rows(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """(positions, classes): logits of every sample, pixel or token that counts.

    logits: (batch, classes), (batch, classes, height, width) or (batch, length, classes). mask: of that shape without
    classes; where it is False nothing counts. A mask of the tokens of texts that get one answer each is none of these.
    """
    last = logits.movedim(1, -1) if logits.ndim == 4 else logits
    counts = of_shape(mask, last.shape[:-1])
    return last.reshape(-1, last.shape[-1]) if counts is None else last[counts]


def of_shape(mask: Tensor | None, shape: torch.Size) -> Tensor | None:
    """The mask where it is one of these places; None where all of them count."""
    return mask.bool() if mask is not None and mask.shape == shape else None


def answers(step: Step) -> tuple[Tensor, Tensor]:
    """(positions, classes) of the student and of the (first) teacher, where the mask lets them count."""
    mask = step.batch.mask
    return rows(step.student.logits, mask), rows(step.teacher().logits, mask)


def labels(step: Step) -> Tensor:
    """(positions,): the labels in the order of `rows`; IGNORED among them where there is none."""
    counts = of_shape(step.batch.mask, step.labels().shape)
    return step.labels().reshape(-1) if counts is None else step.labels()[counts]


def labelled(step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of student and teacher that have a label, and those labels."""
    (student, teacher), target = answers(step), labels(step)
    if step.labels().ndim == 1:
        return student, teacher, target  # whole samples always have one
    there = target != IGNORED
    return student[there], teacher[there], target[there]


def everywhere(by_sample: Tensor, logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """(n, positions) from (n, batch): what holds for a sample, for each of its positions in the order of `rows`."""
    places = logits.shape[2:] if logits.ndim == 4 else logits.shape[1:-1]
    spread = by_sample.reshape(*by_sample.shape, *[1] * len(places)).expand(*by_sample.shape, *places)
    counts = of_shape(mask, spread.shape[1:])
    return spread.flatten(1) if counts is None else spread[:, counts]


def average(values: Tensor) -> Tensor:
    """The mean; 0 of nothing, so that a batch in which no position counts does no harm."""
    return values.mean() if values.numel() else values.sum()


def divergence(student: Tensor, teacher: Tensor, *, temperature: float | Tensor, kind: Kind = "forward") -> Tensor:
    """How far the student's tempered softmax is from the teacher's, times temperature squared.

    student, teacher: logits, (..., classes). kind: `forward` is KL(teacher || student), `reverse` the other way round,
    `js` the Jensen-Shannon divergence, `tv` the total variation, `adaptive` a mixture of forward and reverse. Summed
    over classes and averaged over everything else, so padding the classes or repeating the batch does not rescale it.
    The square keeps the size of the gradient when the temperature is tuned: Hinton et al., 2015 (arXiv:1503.02531),
    section 2.
    """
    return average(each_divergence(student, teacher, temperature=temperature, kind=kind))


def each_divergence(student: Tensor, teacher: Tensor, *, temperature: float | Tensor, kind: Kind = "forward") -> Tensor:
    """The same for each row: (...). temperature: a number, or one for each row, (..., 1)."""
    s = F.log_softmax(student / temperature, dim=-1)
    t = F.log_softmax(teacher / temperature, dim=-1)
    if kind == "forward":
        value = (t.exp() * (t - s)).sum(dim=-1)
    elif kind == "reverse":
        value = (s.exp() * (s - t)).sum(dim=-1)
    elif kind == "tv":
        value = (t.exp() - s.exp()).abs().sum(dim=-1) / 2
    elif kind == "adaptive":
        head = _share_of_head(s, t)
        value = head * (t.exp() * (t - s)).sum(dim=-1) + (1 - head) * (s.exp() * (s - t)).sum(dim=-1)
    else:
        middle = torch.logaddexp(s, t) - torch.log(torch.tensor(2.0))
        value = ((t.exp() * (t - middle)).sum(dim=-1) + (s.exp() * (s - middle)).sum(dim=-1)) / 2
    square = temperature**2
    return value * (square.squeeze(-1) if isinstance(square, Tensor) and square.ndim == value.ndim + 1 else square)


@torch.no_grad()
def _share_of_head(s: Tensor, t: Tensor) -> Tensor:
    """How much of the gap between two sets of log-probabilities lies in the teacher's most likely classes."""
    believed, order = t.exp().sort(dim=-1, descending=True)
    gap = (believed - s.exp().gather(-1, order)).abs()
    head = believed.cumsum(dim=-1) <= HEAD
    head[..., 0] = True  # the first class is of the head even where it holds more than that share alone
    return (gap * head).sum(dim=-1) / gap.sum(dim=-1).clamp_min(1e-8)


def deviation(logits: Tensor) -> Tensor:
    """(..., 1): the standard deviation of each row, with C - 1; its gradient is finite where all are equal."""
    centred = logits - logits.mean(dim=-1, keepdim=True)
    length: Tensor = centred.norm(dim=-1, keepdim=True)
    return length / math.sqrt(logits.shape[-1] - 1)


def standardised(logits: Tensor) -> Tensor:
    """Logits with mean 0 and standard deviation 1 in each row."""
    return (logits - logits.mean(dim=-1, keepdim=True)) / (deviation(logits) + Z_EPS)


def one_of(value: str, known: Iterable[str], *, option: str) -> None:
    """ValueError: an option has a value that it does not take."""
    if value not in known:
        raise ValueError(f"{option} is {value!r}; it can be {', '.join(known)}")


def above_zero(**numbers: float) -> None:
    """ValueError: one of these options is not above 0."""
    for option, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{option} is {value}; it must be above 0")


def refuse_other_classes(student: Tensor, teacher: Tensor, *, name: str) -> None:
    """StageError: these answers do not tell the same number of classes apart."""
    mine, theirs = (said.shape[1 if said.ndim == 4 else -1] for said in (student, teacher))
    if mine != theirs:
        raise StageError(
            f"the teacher {name} tells {theirs} classes apart and the student {mine}. Give a teacher of the same "
            "classes (or tokeniser), or losses that do not compare class by class: uld, or any on features"
        )


def refuse_unlike(student: Tensor, teacher: Tensor, *, name: str) -> None:
    """StageError: answers of these shapes cannot be compared class by class."""
    if student.shape == teacher.shape:
        return
    if student.ndim == teacher.ndim:
        refuse_other_classes(student, teacher, name=name)
    raise StageError(
        f"the student answers in the shape {tuple(student.shape)} and the teacher {name} in {tuple(teacher.shape)}: "
        "they must agree position by position"
    )


class Imitation(Term):
    """A loss that compares what the student and the teacher say, class by class."""

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def build(self, probe: Step) -> None:
        for name, said in probe.teachers.items():
            refuse_unlike(probe.student.logits, said.logits, name=name)


class CrossEntropy(Term):
    """Cross-entropy with the labels: -log p_y, for samples, for pixels (dense answers) or for tokens.

    Labels of -100 and positions outside the mask do not count.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels"})

    def forward(self, step: Step) -> Tensor:
        target, said = labels(step), rows(step.student.logits, step.batch.mask)
        if step.labels().ndim == 1:
            return F.cross_entropy(said, target)
        counted = (target != IGNORED).sum().clamp_min(1)  # a batch without any label is worth 0, not NaN
        return F.cross_entropy(said, target, ignore_index=IGNORED, reduction="sum") / counted


class KnowledgeDistillation(Term):
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)). Hinton et al., 2015 (arXiv:1503.02531), section 2.

    kind: `forward` as above; `reverse`, `js` and `tv` as in f-DISTILL (Wen et al., 2023, arXiv:2307.15190); `adaptive`
    is h KL(t || s) + (1 - h) KL(s || t), where h is the share of the gap |p_t - p_s| that lies in the classes which
    hold half of the teacher's belief (Wu et al., 2024, arXiv:2404.02657). standardise: compare z-scores of the logits
    (the loss lskd). classes: numbers of the classes to compare, as softmaxes over these alone: those that an older
    model knew (learning without forgetting: Li & Hoiem, 2016, arXiv:1606.09282), or a specialist's. A teacher that
    tells only so many is taken to tell these, in this order.

    combine, for several teachers that count w_k each: `each` is sum_k w_k KL_k, `probabilities` KL(sum_k w_k p_k || s)
    with tempered p_k, `logits` KL(softmax(sum_k w_k z_k / T) || s); they are three different losses.

    A temperature of 4 is usual for CIFAR, 1 for ImageNet, 20 in the paper's MNIST. A teacher that was trained with
    label smoothing loses what it could teach at high temperatures: keep T at 1 to 2 there (Chandrasegaran et al.,
    2022, arXiv:2206.14532).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})
    every_teacher: ClassVar[bool] = True
    any_classes: ClassVar[bool | None] = True  # with `classes`; without them `build` refuses

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        kind: Kind = "forward",
        standardise: bool = False,
        classes: Sequence[int] | None = None,
        combine: Combine = "each",
    ) -> None:
        super().__init__()
        above_zero(temperature=temperature)
        one_of(kind, get_args(Kind), option="kind")
        one_of(combine, get_args(Combine), option="combine")
        if classes is not None and (len(set(classes)) < max(2, len(classes)) or min(classes) < 0):
            raise ValueError(f"classes is {list(classes)}; it lists two or more different class numbers, from 0")
        self.temperature, self.kind, self.standardise, self.combine = temperature, kind, standardise, combine
        self.classes = None if classes is None else list(classes)

    def build(self, probe: Step) -> None:
        told = probe.student.logits
        count = told.shape[1] if told.ndim == 4 else told.shape[-1]
        if count < 2:
            raise StageError(
                "the student tells one number, and a softmax of one number is always 1: distil with the loss logits "
                "(regression) or bkd (yes or no)"
            )
        if self.classes is not None and max(self.classes) >= count:
            raise StageError(f"classes names class {max(self.classes)}, and the student tells classes 0 to {count - 1}")
        mine = self._chosen(rows(told))
        for name, said in probe.teachers.items():
            if self.classes is None:
                refuse_unlike(told, said.logits, name=name)
            else:
                refuse_unlike(mine, self._chosen(rows(said.logits)), name=name)

    def forward(self, step: Step) -> Tensor:
        mask = step.batch.mask
        student = self._prepared(rows(step.student.logits, mask))
        told = [self._prepared(rows(said.logits, mask)) for said in step.teachers.values()]
        if len(told) == 1:
            return divergence(student, told[0], temperature=self.temperature, kind=self.kind)
        shares = everywhere(step.shares(), step.student.logits, mask)
        if self.combine == "each":
            values = [each_divergence(student, one, temperature=self.temperature, kind=self.kind) for one in told]
            return average((shares * torch.stack(values)).sum(dim=0))
        together = combined(told, shares, temperature=self.temperature, how=self.combine)
        return divergence(student, together, temperature=self.temperature, kind=self.kind)

    def _chosen(self, logits: Tensor) -> Tensor:
        if self.classes is None or logits.shape[-1] == len(self.classes):
            return logits
        return logits[..., self.classes]

    def _prepared(self, logits: Tensor) -> Tensor:
        chosen = self._chosen(logits)
        return standardised(chosen) if self.standardise else chosen


def combined(told: Sequence[Tensor], shares: Tensor, *, temperature: float, how: Combine) -> Tensor:
    """Logits whose tempered softmax is the mean of several teachers' logits or probabilities.

    told: logits of each teacher, (positions, classes). shares: (teachers, positions).
    """
    stacked, weights = torch.stack(list(told)), shares.unsqueeze(-1)
    if how == "logits":
        return (weights * stacked).sum(dim=0)
    believed = F.log_softmax(stacked / temperature, dim=-1) + weights.clamp_min(1e-12).log()
    return temperature * torch.logsumexp(believed, dim=0)
