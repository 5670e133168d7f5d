"""Images that begin with the mean and the spread of the data."""

from __future__ import annotations

import pytest
import torch

from edgepress.stages.synthesis.generators import Generator
from edgepress.stages.synthesis.methods import METHODS
from edgepress.stages.synthesis.spread import Spread, gain_and_shift

MNIST = ((0.1307,), (0.3081,))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))


@pytest.mark.parametrize(("mean", "std"), [MNIST, CIFAR], ids=["MNIST", "CIFAR"])
def test_answers_that_are_distributed_normally_become_pixels_like_those_of_the_data(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    maps = 7 * torch.randn(64, len(mean), 32, 32, generator=torch.Generator().manual_seed(0)) + 3
    pixels = Spread(mean, std)(maps)
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1
    torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.tensor(mean), atol=0.01, rtol=0)
    torch.testing.assert_close(pixels.std(dim=(0, 2, 3)), torch.tensor(std), atol=0.01, rtol=0)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.01, 0.9), (0.0, 0.1), (1.3, 2.0)])
def test_a_spread_that_no_picture_has_becomes_the_widest_through_which_a_gradient_goes(mean: float, std: float) -> None:
    gain, shift = gain_and_shift(mean, std)
    points = torch.linspace(-3, 3, 61, requires_grad=True)
    torch.sigmoid(gain * points + shift).sum().backward()
    assert points.grad is not None
    assert float(points.grad.max()) > 0.1


def test_what_a_new_generator_makes_has_the_mean_of_the_data_where_a_sigmoid_makes_grey() -> None:
    numbers = torch.randn(128, 16, generator=torch.Generator().manual_seed(1))
    grey = Generator((1, 28, 28), latent=16, width=8)(numbers).detach()
    like = Generator((1, 28, 28), latent=16, width=8, ending=Spread(*MNIST))(numbers).detach()
    assert abs(float(like.mean()) - MNIST[0][0]) < 0.05 < abs(float(grey.mean()) - MNIST[0][0])


def test_the_methods_whose_authors_end_in_a_batch_norm_spread_their_images() -> None:
    assert {name for name, method in METHODS.items() if method.spreads} == {"dafl", "dfad", "zskt", "dfq", "gdfq"}
