"""The generator: images of every shape out of random numbers, the same ones from the same seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgepress.stages.pruning import count_macs
from edgepress.stages.synthesis.generators import Generator, Shape, macs, start_of, width_for

SHAPES: tuple[Shape, ...] = ((1, 28, 28), (3, 32, 32), (3, 24, 40), (1, 9, 30), (3, 96, 96))


def numbers(count: int, latent: int = 8, *, seed: int = 0) -> Tensor:
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(seed))


def small(shape: Shape = (1, 8, 8), *, classes: int | None = None, noisy_layers: int = 1, seed: int = 0) -> Generator:
    return Generator(shape, latent=8, width=8, classes=classes, noisy_layers=noisy_layers, seed=seed)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 224, 224)], ids=str)
def test_images_of_every_shape_are_pixels(shape: Shape) -> None:
    images = small(shape)(numbers(2)).detach()
    assert images.shape == (2, *shape)
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_larger_images_begin_small_and_are_doubled_more_often() -> None:
    assert [start_of((1, side, side)) for side in (28, 32, 48, 64, 96, 224)] == [
        (7, 7), (8, 8), (12, 12), (8, 8), (12, 12), (14, 14),
    ]  # fmt: skip


def test_the_seed_alone_decides_the_first_weights_and_others_randomness_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = small(seed=1)
    assert torch.equal(torch.rand(3), expected)
    other, third = small(seed=1), small(seed=2)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one(numbers(4)), third(numbers(4)))


def test_an_image_does_not_depend_on_those_beside_it_when_it_is_drawn_in_eval_mode() -> None:
    generator = small().eval()
    torch.testing.assert_close(generator(numbers(4))[:2], generator(numbers(4)[:2]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_cost_is_that_of_the_network(shape: Shape) -> None:
    assert macs(shape, width=16, latent=20) == count_macs(Generator(shape, latent=20, width=16), numbers(1, 20))


def test_a_narrow_generator_of_the_papers_shape_costs_what_the_specification_says() -> None:
    found = [macs((3, 32, 32), width=width) / 1e6 for width in (16, 32, 64)]
    assert found == pytest.approx([7.3, 29, 117], rel=0.06)


def test_the_width_follows_what_the_networks_cost() -> None:
    shape = (3, 32, 32)
    widths = [width_for(budget, shape) for budget in (0, 8_000_000, 41_000_000, 500_000_000)]
    assert widths == [8, 16, 32, 64]
    assert macs(shape, width=widths[2]) <= 41_000_000 < macs(shape, width=widths[2] + 8)


def test_a_generator_that_is_told_classes_draws_them_differently_and_images_of_one_class_too() -> None:
    generator = small(classes=3, noisy_layers=2)
    images = generator(None, torch.tensor([0, 1, 0, 2]))
    assert all(not torch.equal(images[0], images[other]) for other in (1, 2, 3))
    alike = generator(None, torch.tensor([0, 0, 0]))  # two layers take turns
    assert torch.equal(alike[0], alike[2])
    assert not torch.equal(alike[0], alike[1])


def test_the_directions_of_classes_are_the_same_for_a_seed_and_never_learn() -> None:
    one, other = small(classes=5), small(classes=5)
    assert torch.equal(one.directions, other.directions)
    assert "directions" not in dict(one.named_parameters())
    assert "directions" in one.state_dict()
    torch.testing.assert_close(one.directions.mean(dim=0), torch.zeros(8), atol=1e-6, rtol=0)
    torch.testing.assert_close(one.directions.std(dim=0, correction=0), torch.ones(8))


def test_random_numbers_are_multiplied_by_the_embedding_of_the_class() -> None:
    generator = small(classes=3)
    y, z = torch.tensor([2, 0]), numbers(2)
    embedded = generator.directions[y] @ generator.noise[0].T + generator.noise_bias[0]
    torch.testing.assert_close(generator(z, y), generator(z * embedded))


def test_the_noisy_layer_begins_anew_as_its_generator_says() -> None:
    one, other = small(classes=3, seed=1), small(classes=3, seed=1)
    before = one.noise.detach().clone()
    one.renew(torch.Generator().manual_seed(9))
    other.renew(torch.Generator().manual_seed(9))
    assert not torch.equal(one.noise, before)
    assert torch.equal(one.noise, other.noise)
    assert one.noise.requires_grad


def test_the_first_layer_begins_anew_and_the_others_stay() -> None:
    generator = small()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.reset_first(torch.Generator().manual_seed(0))
    changed = {name for name, value in generator.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"first.weight", "first.bias"}
    assert float(generator.first.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
