"""Channels that go straight from one layer to the next are found where torch-pruning's graph fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import artifact, context
from torch import Tensor, nn

from edgepress.stages.prune import Prune
from edgepress.stages.pruning import count_parameters, prune
from edgepress.stages.slimming import groups as grouping
from edgepress.stages.slimming.cutting import slim
from edgepress.stages.slimming.groups import find_groups
from edgepress.stages.slimming.rows import Row, rows
from edgepress.targets.errors import UnfitError

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Mobile(nn.Module):
    """An inverted residual block and an MLP behind a split, an addition and a transposition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.expand = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(inplace=True))
        self.depth = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.Hardswish())
        self.project = nn.Conv2d(32, 16, 1)
        self.widen, self.narrow = nn.Linear(16, 64), nn.Linear(64, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.depth(self.expand(x)))
        first, second = x.chunk(2, dim=1)
        x = torch.cat((second, first), dim=1).flatten(2).transpose(1, 2)
        x = x + self.narrow(F.gelu(self.widen(x)))
        return self.head(x.mean(1))


class Other(nn.Module):
    """One convolution after another, with something between them that is to end the row."""

    def __init__(self, between: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.between(self.first(x), self.second)


def fails(*_: Any, **__: Any) -> Any:
    raise IndexError("index 786 is out of bounds")


def misread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch-pruning is by some networks of timm."""
    import torch_pruning as tp

    monkeypatch.setattr(tp.DependencyGraph, "build_dependency", fails)


def test_rows_pass_norms_activations_and_depthwise_convolutions() -> None:
    assert rows(Mobile().eval(), IMAGE) == [
        Row(maker="expand.0", passed=("expand.1", "depth.0", "depth.1"), reader="project"),
        Row(maker="widen", passed=(), reader="narrow"),
    ]


@pytest.mark.parametrize(
    "between",
    [
        lambda x, second: second(x) + x,  # somebody else reads it too
        lambda x, second: second(second(x)),  # weights that are used twice
        lambda x, second: second(x.roll(1, dims=1)),  # channels change their places
        lambda x, second: second(x + 1),  # harmless, and not understood
        lambda x, second: second(F.relu(x, inplace=True)),  # what goes in comes out: who reads what cannot be told
        lambda x, second: second(torch.cat(x.split(8, dim=1)[::-1], dim=1)),
        lambda x, second: (second(x), x)[1],  # it is the answer
    ],
)
def test_whatever_is_not_understood_ends_a_row(between: Callable[..., Tensor]) -> None:
    assert not rows(Other(between).eval(), IMAGE)


def test_a_row_is_found_where_nothing_stands_between() -> None:
    plain = Other(lambda x, second: second(F.relu(x))).eval()
    assert rows(plain, IMAGE) == [Row(maker="first", passed=(), reader="second")]


def test_a_network_that_is_misread_is_pruned_in_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch)
    net = Mobile().eval()
    found = find_groups(net, IMAGE[:1], multiple=8, blocks=False).found
    assert {name: group.width for name, group in found.items()} == {"expand.0": 32, "widen": 64}
    assert found["widen"].widths[-1] >= 8
    small = slim(net, found.values(), {"expand.0": list(range(8)), "widen": list(range(16))})
    assert small.depth[0].groups == 8
    assert small.narrow.in_features == 16
    with torch.no_grad():
        assert small(IMAGE).shape == (2, 4)
        whole, same = net(IMAGE), slim(net, found.values(), {})(IMAGE)
    assert torch.equal(whole, same)


def test_a_network_without_rows_cannot_be_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch)
    with pytest.raises(UnfitError, match="IndexError: index 786 is out of bounds"):
        find_groups(Other(lambda x, second: second(x) + x).eval(), IMAGE[:1], multiple=8)


@pytest.mark.parametrize("importance", ["auto", "bn-scale", "taylor"])
def test_by_a_ratio_every_group_loses_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, importance: Any
) -> None:
    misread(monkeypatch)
    notes: list[str] = []
    around = replace(context(tmp_path), note=notes.append)
    start = artifact()
    pruned = prune(Prune(ratio=0.5, epochs=0, importance=importance), start, around)
    assert count_parameters(pruned.module) < count_parameters(start.module)
    assert pruned.records[-1].metrics["scope"].startswith("groups that can be cut")
    assert any("cannot be ranked over the whole network" in note for note in notes)


def test_groups_of_the_graph_are_taken_where_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "rows", fails)
    assert find_groups(Mobile().eval(), IMAGE[:1], multiple=8).found
