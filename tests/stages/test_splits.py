"""Divisions are fair, and the order of a loader depends on the seed and the epoch alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgepress.stages.splits import Split, divide, in_memory, loader, thin


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int) -> Split:
    """Each image is filled with its own number, and so is its label."""
    numbers = torch.arange(count)
    return in_memory(numbers.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).to(torch.uint8), numbers)


def seen(split: Split, *, seed: int = 0, epoch: int = 0, shuffle: bool = True, batch_size: int = 8) -> list[int]:
    batches = loader(split, batch_size=batch_size, shuffle=shuffle, seed=seed, epoch=epoch)
    return [place for _, _, indices in batches for place in indices.tolist()]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=80), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_division_is_stratified_complete_and_without_overlap(labels: list[int], share: float, seed: int) -> None:
    values = torch.tensor(labels)
    some, rest = divide(values, share, generator=seeded(seed))
    assert torch.equal(torch.cat([some, rest]).sort().values, torch.arange(len(values)))
    assert len(some) == min(max(1, round(share * len(values))), len(values) - 1)
    for label in values.unique():
        exact = float((values == label).sum()) * len(some) / len(values)
        assert abs(int((values[some] == label).sum()) - exact) < 1


def test_a_division_depends_on_its_generator_alone() -> None:
    labels = torch.arange(100) % 4
    first, again, other = (divide(labels, 0.3, generator=seeded(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_thinning_keeps_the_classes_balanced_and_never_more_than_the_limit() -> None:
    labels = torch.arange(100) % 4
    places = thin(labels, 20, seed=0)
    assert labels[places].bincount().tolist() == [5, 5, 5, 5]
    assert torch.equal(thin(labels, None, seed=0), torch.arange(100))
    assert torch.equal(thin(labels, 100, seed=0), torch.arange(100))


def test_every_image_is_seen_once_with_its_own_label_and_index() -> None:
    split = numbered(37).subset(torch.arange(5, 35))
    assert sorted(seen(split)) == list(range(30))
    for images, labels, indices in loader(split, batch_size=7, shuffle=True, seed=0, epoch=0):
        assert torch.equal(images[:, 0, 0, 0], labels.to(torch.uint8))
        assert torch.equal(labels, split.labels()[indices])


def test_an_order_depends_on_the_seed_and_the_epoch_and_nothing_else() -> None:
    split = numbered(50)
    before = seen(split, seed=1, epoch=2)
    torch.manual_seed(123)
    assert seen(split, seed=1, epoch=2) == before
    assert seen(split, seed=1, epoch=3) != before
    assert seen(split, seed=2, epoch=2) != before


def test_a_loader_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    seen(numbered(20))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_shuffling_the_order_is_the_split_s_own() -> None:
    assert seen(numbered(21), shuffle=False) == list(range(21))


@pytest.mark.parametrize(("count", "batch_size"), [(129, 128), (65, 8), (10, 3), (7, 7)])
def test_no_shuffled_batch_is_left_with_a_single_image(count: int, batch_size: int) -> None:
    batches = loader(numbered(count), batch_size=batch_size, shuffle=True, seed=0, epoch=0)
    sizes = [len(labels) for _, labels, _ in batches]
    assert len(sizes) == len(batches) == -(-count // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 1


def test_a_subset_of_a_subset_counts_from_the_inner_one() -> None:
    inner = numbered(20).subset(torch.arange(10, 20)).subset(torch.tensor([0, 3]))
    images, labels, indices = inner.__getitems__([1, 0])
    assert (labels.tolist(), indices.tolist()) == ([13, 10], [1, 0])
    assert images[:, 0, 0, 0].tolist() == [13, 10]
    assert (len(inner), inner.shape) == (2, (1, 2, 2))


class Decoded:
    """Pixels that are made when they are asked for."""

    is_in_memory = False
    shape = (1, 1, 1)

    def read(self, rows: Tensor) -> Tensor:
        return rows.view(-1, 1, 1, 1).to(torch.uint8)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_images_that_are_not_in_memory_come_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepress.stages.splits._workers", lambda: 2)
    split = Split(Decoded(), torch.arange(24))
    assert seen(split, seed=3) == seen(numbered(24), seed=3)
