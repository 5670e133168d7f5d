"""A network that teaches itself: by what it said before, of another variation, or of another image of the class."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError
from .nouns import Need, Step, Term
from .response import divergence, rows


class Memory(nn.Module):
    """A row of numbers for each sample of the data, by its index, kept between epochs and in checkpoints.

    It grows to the largest index that it meets. written: how often each row was written; 0: it says nothing yet. Each
    of several processes remembers what it was shown itself, which is another part of the data in every epoch.
    """

    rows: Tensor
    written: Tensor

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("rows", torch.zeros(0, width))
        self.register_buffer("written", torch.zeros(0, dtype=torch.int64))

    def recall(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, width) and how often each of these rows was written, (batch,)."""
        index = self._reserved(index)
        return self.rows[index], self.written[index]

    @torch.no_grad()
    def write(self, index: Tensor, values: Tensor) -> None:
        """Replace these rows."""
        index = self._reserved(index)
        self.rows[index] = values.detach().to(self.rows.dtype)
        self.written[index] += 1

    def _reserved(self, index: Tensor) -> Tensor:
        index = index.to(self.rows.device)
        more = int(index.max()) + 1 - len(self.rows)
        if more > 0:
            self.rows = torch.cat([self.rows, self.rows.new_zeros(max(more, len(self.rows)), self.width)])
            self.written = torch.cat([self.written, self.written.new_zeros(len(self.rows) - len(self.written))])
        return index

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}rows")
        if saved is not None:
            self.rows = self.rows.new_zeros(saved.shape)
            self.written = self.written.new_zeros(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class _Remembers(Term):
    """A term with a row of class probabilities for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(width=0)

    def build(self, probe: Step) -> None:
        logits = probe.student.logits
        if logits.ndim != 2:
            raise StageError(
                "a loss remembers one answer for each sample, and this network answers for each position: its memory "
                "would be as large as all answers together"
            )
        self.memory = Memory(width=logits.shape[1])


class ProgressiveSelfDistillation(_Remembers):
    """CE((1 - a) y + a p_before, p): the label, softened by what the student said of this sample an epoch ago.

    a = last x progress. Kim et al., 2021 (PS-KD, arXiv:2006.12000); last 0.8 is theirs, and a grows linearly with the
    epochs. A sample that is seen for the first time has its label alone. It takes the place of `ce`: set that to 0.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "index"})

    def __init__(self, *, last: float = 0.8) -> None:
        super().__init__()
        self.last = last

    def forward(self, step: Step) -> Tensor:
        logits, index = step.student.logits, step.index()
        before, written = self.memory.recall(index)
        label = F.one_hot(step.labels(), logits.shape[1]).to(logits.dtype)
        share = self.last * step.progress * (written > 0).to(logits.dtype).unsqueeze(1)
        target = (1 - share) * label + share * before
        self.memory.write(index, logits.softmax(dim=1))
        return -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


class TemporalEnsembling(_Remembers):
    """mean (p - Z / (1 - a^t))^2: agree with the average of what was said of this sample in earlier epochs.

    After each of its t visits a sample's average is Z <- a Z + (1 - a) p; dividing by 1 - a^t undoes the zero that it
    began with. Laine and Aila, 2017 (arXiv:1610.02242): a = momentum 0.6, the mean is over classes as well, and the
    weight rises over 80 epochs along exp(-5 (1 - t)^2), here `ramp: {epochs: 80, kind: sigmoid}`. No label is used.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"index"})

    def __init__(self, *, momentum: float = 0.6) -> None:
        super().__init__()
        self.momentum = momentum

    def forward(self, step: Step) -> Tensor:
        said, index = step.student.logits.softmax(dim=1), step.index()
        average, visits = self.memory.recall(index)
        self.memory.write(index, self.momentum * average + (1 - self.momentum) * said)
        seen = (visits > 0).to(said.dtype).unsqueeze(1)
        grown = 1 - self.momentum ** visits.clamp(min=1).to(said.dtype).unsqueeze(1)
        return (seen * (said - average / grown).square()).mean()


class ClassWise(Term):
    """T^2 KL(softmax(z' / T) || softmax(z / T)), z' being the student's own answer to another image of the class.

    Yun et al., 2020 (CS-KD, arXiv:2003.13964); no gradient goes through z'. Theirs: temperature 4 and weight 1, or 3
    for fine-grained classes.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "classmate"})

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, step: Step) -> Tensor:
        other = step.second().logits.detach()
        return divergence(rows(step.student.logits), rows(other), temperature=self.temperature)


class DistortionGuided(Term):
    """T^2 [KL(softmax(a / T) || softmax(b / T)) + KL(softmax(b / T) || softmax(a / T))], a, b: two variations' answers.

    Xu and Liu, 2019 (data-distortion guided self-distillation, AAAI, doi:10.1609/aaai.v33i01.33015565). Of the paper
    the abstract was read: it also matches the distributions of features, which is left out here. That gradients go
    both ways and temperature 1 are our choice.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"view"})

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, step: Step) -> Tensor:
        one, other = rows(step.student.logits), rows(step.second().logits)
        there = divergence(one, other, temperature=self.temperature)
        return there + divergence(other, one, temperature=self.temperature)


class MeanTeacher(Term):
    """mean (p_s - p_t)^2 over batch and classes, for a teacher that is the student's own average.

    Tarvainen and Valpola, 2017 (arXiv:1703.01780). Theirs: the teacher `ema` with decay .999, and the weight 100,
    which rises over 5 epochs: `meanteacher: {weight: 100, ramp: {epochs: 5, kind: sigmoid}}`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def forward(self, step: Step) -> Tensor:
        mask = step.batch.mask
        student, teacher = rows(step.student.logits, mask), rows(step.teacher().logits, mask)
        return (student.softmax(dim=-1) - teacher.softmax(dim=-1)).square().mean()
