"""Make features of two networks comparable: first their place in the image or the sentence, then their width.

Features are vectors (d), tokens (length, d) or maps (channels, height, width), each behind the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...targets.errors import StageError

WORDS = {1: "a vector", 2: "tokens", 3: "a map"}


def meet(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The two of one kind and of one length or height and width, whatever their widths.

    Of two maps the larger is averaged down, each side by itself. Tokens of different lengths, and tokens beside a map,
    are laid out as square maps without their class token. StageError: they cannot meet.
    """
    kinds = {student.ndim - 1, teacher.ndim - 1}
    if kinds == {1} or (kinds == {2} and student.shape[1] == teacher.shape[1]):
        return student, teacher
    if not kinds <= {2, 3} or any(_map_size(one.shape[1:]) is None for one in (student, teacher)):
        _refuse(student.shape[1:], teacher.shape[1:])
    one, other = as_map(student), as_map(teacher)
    size = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    return _shrunk(one, size), _shrunk(other, size)


def adapter(student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    """What gives the student's features the width of the teacher's, after `meet`; built from shapes without the batch.

    Nothing where the widths are equal, a 1x1 convolution with batch norm for maps, a linear layer for tokens and
    vectors. StageError: the shapes cannot meet.
    """
    shape, wide = met(student, teacher)
    if shape[channels(shape)] == wide:
        return nn.Identity()
    if len(shape) == 3:
        return nn.Sequential(nn.Conv2d(shape[0], wide, 1, bias=False), nn.BatchNorm2d(wide))
    return nn.Linear(shape[-1], wide)


def met(student: Sequence[int], teacher: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """The shape of the student's features once they have met the teacher's, and the teacher's width then."""
    one, other = meet(torch.empty(1, *student, device="meta"), torch.empty(1, *teacher, device="meta"))
    shape = tuple(one.shape[1:])
    return shape, other.shape[1:][channels(shape)]


def channels(shape: Sequence[int]) -> int:
    """Where the width stands in a shape without the batch: first in maps, last in tokens and vectors."""
    return 0 if len(shape) == 3 else len(shape) - 1


def pointwise(shape: Sequence[int], wide: int, *, bias: bool = True) -> nn.Module:
    """A linear map of each position's channels: features of this shape become so wide."""
    if len(shape) == 3:
        return nn.Conv2d(shape[0], wide, 1, bias=bias)
    return nn.Linear(shape[-1], wide, bias=bias)


def pooled(features: Tensor) -> Tensor:
    """(batch, channels): the mean over height and width, or over tokens."""
    if features.ndim == 4:
        return features.mean(dim=(2, 3))
    return features.mean(dim=1) if features.ndim == 3 else features


def as_map(features: Tensor) -> Tensor:
    """(batch, channels, height, width): maps as they are, tokens laid out as a square without a class token."""
    if features.ndim == 4:
        return features
    size = _map_size(features.shape[1:])
    assert size is not None, "tokens that are no square were to be laid out as a map"
    patches = features[:, features.shape[1] - size[0] * size[1] :]
    return patches.transpose(1, 2).reshape(len(features), -1, *size)


def patches_of(length: int) -> int:
    """How many of so many tokens are patches of a square image; the others, before them, stand for the whole.

    StageError: neither this many nor one or two fewer make a square.
    """
    for extra in (0, 1, 2):  # no class token; one; one and a distillation token
        if length > extra and math.isqrt(length - extra) ** 2 == length - extra:
            return length - extra
    raise StageError(f"{length} tokens, with or without class tokens, are no square of patches")


def _map_size(shape: Sequence[int]) -> tuple[int, int] | None:
    if len(shape) == 3:
        return shape[1], shape[2]
    try:
        side = math.isqrt(patches_of(shape[0]))
    except StageError:
        return None
    return side, side


def _shrunk(features: Tensor, size: tuple[int, int]) -> Tensor:
    return features if tuple(features.shape[2:]) == size else F.adaptive_avg_pool2d(features, size)


def _refuse(student: Sequence[int], teacher: Sequence[int]) -> None:
    seen = " and ".join(
        f"{whose} is {WORDS.get(len(shape), 'something else')} of shape {tuple(shape)}"
        for whose, shape in (("the student's", student), ("the teacher's", teacher))
    )
    raise StageError(
        f"features that cannot be compared: {seen}. Maps go with maps, vectors with vectors, tokens with tokens of the "
        "same length or, as patches of a square image, with maps; tap other modules."
    )
