"""The data-free score tells good images from collapsed ones; the contact sheet shows what is there."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from edgepress.stages.contract import Preprocessing
from edgepress.stages.synthesis.score import Score, examine, score
from edgepress.stages.synthesis.sheet import SIDE, contact_sheet, png

CLASSES = 5


def varied(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def told(labels: Tensor, *, scale: float = 12.0) -> Tensor:
    """Logits that answer these classes; scale 0: nothing is known."""
    return scale * nn.functional.one_hot(labels, CLASSES).float()


def balanced(count: int = 100, *, scale: float = 12.0) -> tuple[Tensor, Tensor]:
    return varied(count), told(torch.arange(count) % CLASSES, scale=scale)


def test_sure_balanced_and_varied_images_have_the_highest_score() -> None:
    found = score(*balanced())
    assert found.total == pytest.approx(1.0, abs=0.01)
    assert found.collapsed is None
    assert found.class_counts == (20,) * CLASSES
    assert found.balance == pytest.approx(1.0)
    assert found.confidence == pytest.approx(found.class_confidence[0] or 0.0)


def test_the_information_follows_its_formula() -> None:
    logits = torch.randn(50, CLASSES, generator=torch.Generator().manual_seed(1))
    p = logits.double().softmax(1)
    mean = p.mean(0)
    wanted = (p * (p / mean).log()).sum(1).mean() / math.log(CLASSES)  # the mean divergence from the mean prediction
    assert score(varied(50), logits).information == pytest.approx(float(wanted), abs=1e-9)


def test_the_spread_is_that_within_a_class() -> None:
    labels = torch.arange(40) % 2
    images = labels.float().view(-1, 1, 1, 1).expand(-1, 1, 8, 8)  # two images, each twenty times
    assert score(images, told(labels)).spread == 0
    noisy = (128 + 20 * torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))).round()
    found = score(noisy.to(torch.uint8), told(torch.arange(400) % CLASSES)).spread
    assert found == pytest.approx(20 / 255, rel=0.05)


@pytest.mark.parametrize(
    ("images", "logits", "reason"),
    [
        (varied(100), told(torch.full((100,), 3)), "the teacher takes 100 % of the images for class 3"),
        (torch.full((100, 1, 8, 8), 0.5), balanced()[1], r"all but the same: a pixel differs by 0\.0 % of its range"),
        (varied(100), balanced(scale=0.1)[1], r"recognises nothing .* 21\.\d % on average, and chance is 20\.0 %"),
        (varied(100), torch.full((100, CLASSES), torch.nan), "answers what is no number"),
    ],
    ids=["one class", "one image", "no class", "no number"],
)
def test_a_collapse_has_its_reason_in_words(images: Tensor, logits: Tensor, reason: str) -> None:
    found = score(images, logits)
    assert found.collapsed is not None
    assert torch.tensor(found.total).isfinite()
    assert found.total < score(*balanced()).total
    with pytest.raises(ValueError, match=reason):
        raise ValueError(found.collapsed)


def test_every_loss_of_balance_confidence_variety_or_agreement_lowers_the_score() -> None:
    images, logits = balanced()
    best = score(images, logits, logits).total
    skewed = told((torch.arange(100) % CLASSES).clamp(max=2))
    flat = images * 0.1 + 0.45
    other = logits.roll(1, dims=0)
    assert score(images, skewed, skewed).total < best
    assert score(images, logits / 8, logits / 8).total < best
    assert score(flat, logits, logits).total < best
    assert score(images, logits, other).total < best
    assert score(images, logits, other).disagreement == 1.0
    assert score(images, logits).disagreement is None


def test_a_class_without_images_has_no_confidence() -> None:
    found = score(varied(20), told(torch.arange(20) % 2))
    assert found.class_counts == (10, 10, 0, 0, 0)
    assert found.class_confidence[2:] == (None, None, None)
    assert found.balance == pytest.approx(math.log(2) / math.log(CLASSES), abs=0.01)


def test_more_images_of_the_same_kind_do_not_change_the_score() -> None:
    images, logits = balanced()
    twice = score(images.repeat(2, 1, 1, 1), logits.repeat(2, 1))
    assert twice.total == pytest.approx(score(images, logits).total, abs=1e-6)


class Brightness(nn.Module):
    """Answers how bright an image is; in training mode it answers noise."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(40.0))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        levels = torch.linspace(-1, 1, CLASSES)
        return -self.scale * (self.norm(x).mean(dim=(1, 2, 3)).unsqueeze(1) - levels) ** 2


PIXELS = Preprocessing(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))


def bright(count: int) -> Tensor:
    levels = torch.linspace(0, 1, CLASSES).repeat_interleave(count // CLASSES).view(-1, 1, 1, 1)
    return (levels + 0.1 * varied(count) - 0.05).clamp(0, 1)


def test_images_are_normalised_for_the_networks_which_stay_as_they_were() -> None:
    teacher, student = Brightness().train(), Brightness().eval()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    found = examine(bright(50), teacher, PIXELS, student)
    assert isinstance(found, Score)
    assert found.class_counts == (10,) * CLASSES
    assert found.disagreement == 0
    assert teacher.training
    assert not student.training
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_bytes_and_floats_are_judged_alike() -> None:
    images = (bright(50) * 255).round().to(torch.uint8)
    one, other = examine(images, Brightness(), PIXELS), examine(images.float() / 255, Brightness(), PIXELS)
    assert one.total == pytest.approx(other.total, abs=1e-6)


def opened(data: bytes | None) -> np.ndarray:
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_strip_goes_from_the_surest_image_to_the_least_sure() -> None:
    images = torch.arange(10).view(-1, 1, 1, 1).expand(-1, 1, 8, 8) / 10
    strips = contact_sheet(images, torch.zeros(10, dtype=torch.int64), torch.arange(10) / 10, classes=2, columns=4)
    assert [strip.label for strip in strips] == [0, 1]
    assert strips[1].png is None
    sheet = opened(strips[0].png)
    assert sheet.shape == (8, 4 * 8 + 3 * 2, 4)
    centres = [sheet[4, 4 + 10 * place] for place in range(4)]
    assert [round(int(pixel[0]) / 25.5) for pixel in centres] == [9, 6, 3, 0]
    assert all(pixel[3] == 255 for pixel in centres)
    assert int(sheet[4, 8, 3]) == 0  # between two images


def test_colours_stay_colours_and_large_images_become_small() -> None:
    images = torch.zeros(3, 3, 100, 200)
    images[:, 1] = 1.0
    sheet = opened(contact_sheet(images, torch.zeros(3, dtype=torch.int64), torch.ones(3), classes=1)[0].png)
    assert sheet.shape == (SIDE // 2, 3 * SIDE + 2 * 2, 4)
    assert sheet[10, 10].tolist() == [0, 255, 0, 255]


def test_of_many_classes_the_fullest_and_the_emptiest_are_shown() -> None:
    labels = torch.cat([torch.full((number + 1,), number) for number in range(30)])
    strips = contact_sheet(varied(len(labels)), labels, torch.ones(len(labels)), classes=30, rows=4)
    assert [strip.label for strip in strips] == [0, 1, 28, 29]
    odd = contact_sheet(varied(len(labels)), labels, torch.ones(len(labels)), classes=30, rows=5)
    assert [strip.label for strip in odd] == [0, 1, 27, 28, 29]


def test_without_a_known_confidence_there_is_a_sheet_all_the_same() -> None:
    strips = contact_sheet(varied(4), torch.zeros(4, dtype=torch.int64), torch.full((4,), torch.nan), classes=1)
    assert opened(strips[0].png).shape[1] == 4 * 8 + 3 * 2


def test_an_image_of_unusual_channels_shows_its_first() -> None:
    assert opened(png(torch.rand(2, 8, 8))).shape == (8, 8)
