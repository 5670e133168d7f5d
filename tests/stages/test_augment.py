"""Augmentation moves and mirrors images and does nothing else."""

import pytest
import torch
from torch import Tensor

from edgepress.stages.augment import SHIFT_PX, augment, lots


def drawn(turn: int = 0, count: int = 64) -> Tensor:
    return lots(torch.arange(count), seed=0, turn=turn)


def images(count: int = 64, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randint(1, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def positions(moved: Tensor, original: Tensor, reach: int) -> set[tuple[int, int]]:
    """Every displacement that explains one image entirely, with black where nothing was."""
    side = original.shape[-1]
    padded = torch.nn.functional.pad(original, (reach,) * 4)
    return {
        (y - reach, x - reach)
        for y in range(2 * reach + 1)
        for x in range(2 * reach + 1)
        if torch.equal(moved, padded[:, y : y + side, x : x + side])
    }


@pytest.mark.parametrize("kinds", [("flip",), ("crop",), ("shift",), ("crop", "flip"), ()])
def test_the_same_lots_give_the_same_images(kinds: tuple[str, ...]) -> None:
    assert torch.equal(augment(images(), kinds, drawn(1)), augment(images(), kinds, drawn(1)))


@pytest.mark.parametrize("kind", ["flip", "crop", "shift"])
def test_another_turn_gives_other_images_and_the_originals_stay(kind: str) -> None:
    before = images()
    given = before.clone()
    assert not torch.equal(augment(given, (kind,), drawn(1)), augment(given, (kind,), drawn(2)))
    assert torch.equal(given, before)


def test_a_flip_leaves_an_image_or_mirrors_it_and_both_happen() -> None:
    before = images()
    after = augment(before, ("flip",), drawn())
    kept = [torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(after, before, strict=True)]
    assert all(one != other for one, other in zip(kept, mirrored, strict=True))
    assert 0.25 < sum(mirrored) / len(mirrored) < 0.75


@pytest.mark.parametrize(("kind", "side", "reach"), [("crop", 16, 2), ("crop", 32, 4), ("shift", 16, SHIFT_PX)])
def test_a_moved_image_is_the_original_somewhere_else_over_black(kind: str, side: int, reach: int) -> None:
    before = images(side=side)
    after = augment(before, (kind,), drawn())
    found = [positions(a, b, reach) for a, b in zip(after, before, strict=True)]
    assert all(len(places) == 1 for places in found)
    seen = set().union(*found)
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(-reach, reach + 1))


def test_floating_point_images_are_moved_as_bytes_are() -> None:
    moved = augment(images().float(), ("crop", "flip"), drawn())
    assert torch.equal(moved, augment(images(), ("crop", "flip"), drawn()).float())


def test_images_too_small_to_crop_stay_as_they_are() -> None:
    small = images(side=7)
    assert torch.equal(augment(small, ("crop",), drawn()), small)


@pytest.mark.parametrize("kinds", [("flip",), ("crop", "flip"), ("shift",)])
def test_an_image_is_varied_alike_in_whatever_batch_it_comes(kinds: tuple[str, ...]) -> None:
    whole = augment(images(), kinds, drawn())
    some = torch.tensor([40, 3, 17])
    assert torch.equal(augment(images()[some], kinds, lots(some, seed=0, turn=0)), whole[some])


def test_lots_are_as_even_as_random_numbers_are_whatever_is_counted() -> None:
    many, none = torch.arange(20_000), torch.zeros(20_000, dtype=torch.int64)
    for found in (
        lots(many, seed=0, turn=0),
        lots(many, seed=3, turn=5),
        torch.cat([lots(none[:1], seed=0, turn=turn) for turn in range(2_000)]),
    ):
        counts = ((found >> 33) % 5).bincount(minlength=5)
        expected = len(found) / 5
        assert float(((counts - expected) ** 2 / expected).sum()) < 18.5  # chi-square of 4 degrees: 1 in 1000
    assert len(lots(many, seed=0, turn=0).unique()) == len(many)
