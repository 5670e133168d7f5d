"""Adapters: features of two networks become comparable, whatever their widths and sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from steps import noise
from torch import nn

from edgepress.stages.distill.adapters import adapter, as_map, meet, met, patches_of, pointwise
from edgepress.targets.errors import StageError


def test_features_that_are_alike_already_are_left_alone() -> None:
    for shape in ((7,), (5, 7), (7, 4, 4)):
        one, other = noise(2, *shape), noise(2, *shape, seed=1)
        assert meet(one, other) == (one, other)
        assert isinstance(adapter(shape, shape), nn.Identity)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((3, 8, 8), (5, 8, 8)), ((3, 8, 8), (5, 4, 4)), ((3, 4, 4), (5, 8, 8)), ((3, 6, 2), (5, 3, 5)), ((3, 7, 7), (3, 8, 8))],
)  # fmt: skip
def test_maps_of_other_sizes_and_widths_are_joined(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    one, other = meet(noise(2, *student), noise(2, *teacher))
    widened = adapter(student, teacher)(one)
    assert widened.shape == other.shape
    assert other.shape[2:] == tuple(min(a, b) for a, b in zip(student[1:], teacher[1:], strict=True))


def test_the_larger_map_is_averaged_and_the_smaller_is_not_touched() -> None:
    large, small = noise(2, 3, 8, 8), noise(2, 5, 4, 4)
    one, other = meet(large, small)
    torch.testing.assert_close(one, F.avg_pool2d(large, 2))
    assert other is small


def test_a_map_gets_a_convolution_with_batch_norm_and_tokens_and_vectors_a_linear_layer() -> None:
    assert [type(part) for part in adapter((3, 8, 8), (5, 4, 4))] == [nn.Conv2d, nn.BatchNorm2d]
    assert isinstance(adapter((6, 3), (6, 5)), nn.Linear)
    assert isinstance(adapter((3,), (5,)), nn.Linear)
    assert isinstance(pointwise((3, 8, 8), 5), nn.Conv2d)
    assert adapter((6, 3), (6, 5))(noise(2, 6, 3)).shape == (2, 6, 5)


def test_tokens_are_laid_out_as_an_image_without_their_class_token() -> None:
    image = noise(2, 3, 4, 4)
    patches = image.flatten(2).transpose(1, 2)
    tokens = torch.cat([noise(2, 1, 3), patches], dim=1)
    torch.testing.assert_close(as_map(patches), image)
    torch.testing.assert_close(as_map(tokens), image)
    assert as_map(image) is image
    assert (patches_of(16), patches_of(17), patches_of(18)) == (16, 16, 16)


def test_tokens_meet_maps_and_tokens_of_another_number() -> None:
    image, tokens, fewer = noise(2, 3, 4, 4), noise(2, 17, 5), noise(2, 5, 7)
    assert [tuple(one.shape) for one in meet(image, tokens)] == [(2, 3, 4, 4), (2, 5, 4, 4)]
    assert [tuple(one.shape) for one in meet(tokens, fewer)] == [(2, 5, 2, 2), (2, 7, 2, 2)]
    assert met((17, 5), (5, 7)) == ((5, 2, 2), 7)
    assert adapter((17, 5), (3, 4, 4))(meet(tokens, image)[0]).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("student", "teacher"), [((7,), (3, 4, 4)), ((7,), (5, 7)), ((6, 3), (7, 3)), ((7, 3), (3, 4, 4)), ((3, 2, 2, 2), (3, 2, 2, 2))]
)  # fmt: skip
def test_what_cannot_be_joined_is_refused_with_both_shapes(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(StageError, match="cannot be compared") as caught:
        adapter(student, teacher)
    assert str(student) in str(caught.value)
    assert str(teacher) in str(caught.value)
