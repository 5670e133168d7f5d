"""How good images are that were made from a network, judged without data; and whether their maker has collapsed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..contract import Preprocessing
from ..evaluation import logits
from ..splits import in_memory

MOST_OF_ONE = 0.9  # share of the images in one class: above it the others are not taught
SAME = 0.01  # spread below which images of a class are one image with noise
SPREAD = 0.1  # enough: digits of MNIST have about 0.2, pictures of CIFAR-10 about 0.23
UNSURE = 0.05  # of the way from chance to certainty: below it the images show nothing that the teacher knows


@dataclass(frozen=True, kw_only=True)
class Score:
    """What can be known of a pool of images without data.

    class_counts, class_confidence: by the class that the teacher answers; None where it answers it to no image.
    balance: entropy of the mean prediction, 0 (one class) to 1 (all classes alike). confidence: mean probability of
    the answer. information: what an answer tells about the image, 0 to 1. spread: how much a pixel differs between
    images of one class, as a share of its range. disagreement: share that a student answers otherwise; None without.
    collapsed: what went wrong, in words.
    """

    images: int
    class_counts: tuple[int, ...]
    class_confidence: tuple[float | None, ...]
    balance: float
    confidence: float
    information: float
    spread: float
    disagreement: float | None = None
    collapsed: str | None = None

    @property
    def total(self) -> float:
        """0 to 1, higher is better: the geometric mean of information, spread and, with a student, agreement.

        So one part that is nothing makes it nothing. Spread counts as whole from SPREAD on. Compare scores of the same
        method: those that look for the border between classes leave the teacher less sure.
        """
        parts = [self.information, min(1.0, self.spread / SPREAD)]
        if self.disagreement is not None:
            parts.append(1.0 - self.disagreement)
        return math.prod(parts) ** (1 / len(parts))


def examine(
    images: Tensor, teacher: nn.Module, preprocessing: Preprocessing, student: nn.Module | None = None
) -> Score:
    """Judge images, uint8 or floating point 0 to 1, by what the teacher, and the student, answer to them.

    Both see them in eval mode and stay as they were.
    """
    shown = in_memory(images.detach().cpu(), torch.zeros(len(images), dtype=torch.int64))
    told = logits(teacher, shown, preprocessing)[0]
    answered = None if student is None else logits(student, shown, preprocessing)[0]
    return score(images.detach().cpu(), told, answered)


def score(images: Tensor, told: Tensor, answered: Tensor | None = None) -> Score:
    """told, answered: logits of teacher and student, (n, classes).

    The information is that of Salimans et al., 2016 (arXiv:1606.03498), section 4: the entropy of the mean prediction
    less the mean entropy of the predictions, here divided by the logarithm of the number of classes.
    """
    assert len(images) == len(told) > 0, "an answer for each image"
    count, classes = told.shape
    chances = told.double().softmax(dim=1)
    sure, labels = chances.max(dim=1)
    counts = labels.bincount(minlength=classes)
    sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, sure)
    balance, each = _entropy(chances.mean(dim=0)), _entropy(chances)
    found = Score(
        images=count,
        class_counts=tuple(counts.tolist()),
        class_confidence=tuple(
            total / number if number else None for total, number in zip(sums.tolist(), counts.tolist(), strict=True)
        ),
        balance=_whole(balance),
        confidence=_whole(sure.mean()),
        information=_whole(balance - each.mean()),
        spread=_spread(images, labels),
        disagreement=None if answered is None else float((answered.argmax(dim=1) != labels).double().mean()),
    )
    reason = "the teacher answers what is no number" if not bool(told.isfinite().all()) else _collapse(found)
    return found if reason is None else Score(**{**vars(found), "collapsed": reason})


def _collapse(found: Score) -> str | None:
    """Why nothing can be learned from the images, in words that follow "collapsed:"."""
    most, classes = max(found.class_counts), len(found.class_counts)
    if most > MOST_OF_ONE * found.images:
        share = 100 * most / found.images
        return f"the teacher takes {share:.0f} % of the images for class {found.class_counts.index(most)}"
    if found.spread < SAME:
        return f"the images of a class are all but the same: a pixel differs by {100 * found.spread:.1f} % of its range"
    chance = 1 / classes
    if found.confidence < chance + UNSURE * (1 - chance):
        return (
            f"the teacher recognises nothing on the images: it gives its answers {100 * found.confidence:.1f} % on "
            f"average, and chance is {100 * chance:.1f} %"
        )
    return None


def _entropy(chances: Tensor) -> Tensor:
    """In units of that of equal chances, so 0 to 1."""
    summed: Tensor = torch.special.entr(chances).sum(dim=-1)
    return summed / math.log(chances.shape[-1])


def _spread(images: Tensor, labels: Tensor) -> float:
    """Standard deviation of a pixel between images of a class, over all pixels and classes, 0 to 1 as pixels are.

    A class of one image has none to differ from, and counts as alike.
    """
    total = 0.0
    for label in sorted(set(labels.tolist())):
        members = images[labels == label]
        pixels = members.flatten(1).float() / (255 if images.dtype == torch.uint8 else 1)
        total += float(pixels.std(dim=0, correction=0).mean()) * len(pixels)
    return total / len(images)


def _whole(value: Tensor) -> float:
    """A share; rounding may have led outside. What is no number counts as nothing."""
    number = float(value)
    return min(1.0, max(0.0, number)) if math.isfinite(number) else 0.0
