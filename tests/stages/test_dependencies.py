"""What torch-pruning misreads ends in an error, and in little memory."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency.group import Group
from torch_pruning.dependency.index_mapping import _FlattenIndexMapping

from edgepress.stages import dependencies
from edgepress.stages.dependencies import MOST_CHANNELS, TORCH_PRUNING_FAILS, MisreadError, followed
from edgepress.stages.prune import Prune
from edgepress.stages.pruning import remove_channels
from edgepress.stages.slimming.groups import find_groups
from edgepress.targets.errors import UnfitError

IMAGE = torch.zeros(1, 3, 32, 32)


def wide() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(16 * 30 * 30, 4)).eval()


class Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.body(x)).mean(dim=(2, 3)))


def test_reshapes_that_multiply_without_end_are_an_error() -> None:
    """Torchvision's swin_t asked for 16 GiB here, and for minutes, before it would have ended."""
    places = [_HybridIndex(idx=place, root_idx=place) for place in range(100)]
    again = _FlattenIndexMapping(stride=100)
    with followed():
        places = again(again(places))
        assert len(places) == MOST_CHANNELS
        with pytest.raises(MisreadError, match="would join 100000000 channels"):
            again(places)
    assert issubclass(MisreadError, TORCH_PRUNING_FAILS)


def test_a_network_that_is_misread_cannot_be_pruned_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "MOST_CHANNELS", 10_000)
    with pytest.raises(UnfitError, match="MisreadError: a reshape would join 14400 channels"):
        remove_channels(wide(), IMAGE, Prune(ratio=0.3), multiple=4)
    with pytest.raises(UnfitError, match="a reshape would join 14400 channels"):
        find_groups(wide(), IMAGE, multiple=4)


def test_a_network_whose_groups_grow_without_end_cannot_be_pruned_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "MOST_MEMBERS", 1)
    with pytest.raises(
        UnfitError, match=r"all layers: MisreadError: more than 1 layers .* together\. Name the modules"
    ):
        remove_channels(Looped(), IMAGE, Prune(ratio=0.3), multiple=4)


def test_afterwards_torch_pruning_is_as_it_was() -> None:
    plain = _FlattenIndexMapping.__call__, Group.has_pruning_op
    with followed():
        assert _FlattenIndexMapping.__call__ is not plain[0]
        assert Group.has_pruning_op is not plain[1]
    assert (_FlattenIndexMapping.__call__, Group.has_pruning_op) == plain


def test_a_flattened_feature_map_is_followed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruned, scope = remove_channels(wide(), IMAGE, Prune(ratio=0.5), multiple=4)
    assert scope == "all layers"
    assert pruned[2].in_features == 8 * 30 * 30 < MOST_CHANNELS
