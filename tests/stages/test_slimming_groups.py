"""Channels go together, and what is left answers like the network that nobody listens to them in."""

from __future__ import annotations

import json

import pytest
import torch
from nets import net
from test_pruning import EXAMPLE, IMAGES, PaddedShortcut, answer
from torch import Tensor, nn

from edgepress.stages.pruning import count_macs, count_parameters
from edgepress.stages.slimming.costs import Counted, layers_of
from edgepress.stages.slimming.cutting import slim
from edgepress.stages.slimming.groups import find_groups
from edgepress.stages.structure import resize_, structure
from edgepress.targets.errors import StageError


def test_every_group_is_found_and_the_answers_are_left_alone() -> None:
    groups = find_groups(net(width=32), EXAMPLE, multiple=8)
    assert set(groups.found) == {"stem", "block.conv1", "block"}
    assert set(find_groups(net(width=32), EXAMPLE, multiple=8, blocks=False).found) == {"stem", "block.conv1"}
    assert groups.found["stem"].widths == (24, 16, 8)
    assert "answers" in groups.refused["head"]


def test_a_slimmer_network_answers_like_the_whole_one_that_ignores_those_channels() -> None:
    module = net(width=32)
    groups = find_groups(module, EXAMPLE, multiple=8)
    kept = {"stem": list(range(3, 27)), "block.conv1": list(range(0, 32, 2))}
    small = slim(module, groups.found.values(), kept)
    away = sorted(set(range(32)) - set(kept["stem"]))
    with torch.no_grad():
        module.block.conv1.weight[:, away] = 0
        module.block.conv2.weight[:, 1::2] = 0
        module.head.weight[:, away] = 0
    torch.testing.assert_close(answer(small), answer(module), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stem", [32, 24, 8])
@pytest.mark.parametrize("inner", [32, 16])
def test_counted_costs_are_those_of_the_slimmer_network(stem: int, inner: int) -> None:
    module = net(width=32)
    groups = find_groups(module, EXAMPLE, multiple=8)
    small = slim(module, groups.found.values(), {"stem": range(stem), "block.conv1": range(inner)})
    layers = layers_of(module, groups, EXAMPLE)
    widths = {"stem": stem, "block.conv1": inner, "block": 1}
    macs, parameters = (Counted(layers=layers, what=what, full=groups.full()) for what in ("macs", "parameters"))
    assert macs.value(widths) == pytest.approx(count_macs(small, EXAMPLE) / count_macs(module, EXAMPLE))
    whole = count_parameters(module)  # within biases, which are counted with the weights beside them
    assert parameters.value(widths) == pytest.approx(count_parameters(small) / whole, abs=1e-3)
    changed = macs.change(groups.full(), {"stem": stem})
    assert changed == pytest.approx(macs.value({**groups.full(), "stem": stem}) - 1)


class Mixed(nn.Module):
    """Depthwise, concatenation and a flattened linear layer: three ways in which places are not channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(1, 24, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.joint = nn.Conv2d(40, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.last = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.depthwise(self.a(x)), self.b(x)], dim=1).relu()
        return self.head(self.last(self.grouped(self.joint(x)).relu()).flatten(1))


def test_concatenated_depthwise_and_flattened_channels_keep_their_places() -> None:
    torch.manual_seed(0)
    module = Mixed().eval()
    groups = find_groups(module, EXAMPLE, multiple=4)
    assert {"a", "b", "last"} <= set(groups.found)
    assert "grouped" in " ".join(groups.refused.values())
    kept = {"a": [1, 3, 5, 7], "b": range(5, 21), "last": [0, 2, 4, 6]}
    small = slim(module, groups.found.values(), kept)
    wanted = answer(module)
    with torch.no_grad():
        gone = [place for place in range(16) if place not in kept["a"]]
        module.joint.weight[:, gone] = 0
        module.joint.weight[:, [16 + place for place in range(24) if place not in kept["b"]]] = 0
        for channel in (1, 3, 5, 7):
            module.head.weight[:, 64 * channel : 64 * channel + 64] = 0
    assert not torch.allclose(answer(module), wanted)
    torch.testing.assert_close(answer(small), answer(module), rtol=1e-4, atol=1e-5)


def test_channels_that_padding_moves_to_other_places_are_refused() -> None:
    torch.manual_seed(0)
    groups = find_groups(PaddedShortcut().eval(), EXAMPLE, multiple=8)
    assert set(groups.found) == {"conv1"}
    assert "stem" in groups.refused


def test_wide_groups_lose_several_multiples_at_once() -> None:
    module = nn.Sequential(nn.Conv2d(1, 512, 1), nn.ReLU(), nn.Conv2d(512, 4, 1)).eval()
    (group,) = find_groups(module, EXAMPLE, multiple=8).found.values()
    assert group.widths[0] == 480
    assert group.widths[-1] == 64
    assert len(group.widths) <= 16


def test_excluded_modules_are_named_as_the_reason() -> None:
    groups = find_groups(net(width=32), EXAMPLE, multiple=8, exclude=("block.conv1",))
    assert set(groups.found) == {"stem"}, "a block with a module that must stay, stays too"
    assert "prune.exclude" in groups.refused["block.conv1"]
    with pytest.raises(StageError, match="did you mean 'block.conv1'"):
        find_groups(net(width=32), EXAMPLE, multiple=8, exclude=("block.con1",))


def test_groups_too_narrow_for_the_multiple_are_refused() -> None:
    groups = find_groups(net(width=8), EXAMPLE, multiple=8, blocks=False)
    assert not groups.found
    assert "too few" in groups.refused["block.conv1"]


def test_a_residual_block_can_be_left_out_and_the_network_is_stored_without_it() -> None:
    module = net(width=32)
    groups = find_groups(module, EXAMPLE, multiple=8)
    assert groups.found["block"].is_block
    assert groups.found["block.conv1"].inside == "block"
    assert groups.found["stem"].inside is None
    small = slim(module, groups.found.values(), {"block": [], "stem": range(16)})
    with torch.no_grad():
        module.head.weight[:, 16:] = 0
        wanted = module.head(torch.relu(module.bn(module.stem(IMAGES))).mean(dim=(2, 3)))
    torch.testing.assert_close(answer(small), wanted, rtol=1e-5, atol=1e-5)
    layers = layers_of(module, groups, EXAMPLE)
    macs = Counted(layers=layers, what="macs", full=groups.full())
    widths = {"stem": 16, "block.conv1": 32, "block": 0}
    assert macs.value(widths) == pytest.approx(count_macs(small, EXAMPLE) / count_macs(module, EXAMPLE))
    again = net(width=32, seed=1)
    resize_(again, json.loads(json.dumps(structure(small))))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(answer(again), answer(small), rtol=0, atol=0)


class Attention(nn.Module):
    """As in examples/attention.py, with queries, keys and values in one layer or in three."""

    def __init__(self, *, joint: bool) -> None:
        super().__init__()
        self.heads, self.joint = 4, joint
        if joint:
            self.qkv = nn.Linear(16, 48)
        else:
            self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.out = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, dim=2) if self.joint else (self.query(x), self.key(x), self.value(x))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        weights = (query @ key.transpose(2, 3) / 2).softmax(dim=-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class Attentive(nn.Module):
    def __init__(self, *, joint: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.attention = Attention(joint=joint)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1, 2))
        return self.head((x + self.attention(x)).mean(dim=1))


@pytest.mark.parametrize("joint", [False, True])
def test_heads_of_attentions_go_whole_and_their_number_is_mended(joint: bool) -> None:
    torch.manual_seed(0)
    module = Attentive(joint=joint).eval()
    groups = find_groups(module, EXAMPLE, multiple=4)
    group = groups.found["attention.heads"]
    assert group.widths == (3, 2, 1)
    small = slim(module, groups.found.values(), {"attention.heads": [0, 2]})
    assert small.get_submodule("attention").heads == 2
    with torch.no_grad():
        module.attention.out.weight[:, [*range(4, 8), *range(12, 16)]] = 0
    torch.testing.assert_close(answer(small), answer(module), rtol=1e-5, atol=1e-5)
    again = Attentive(joint=joint)
    resize_(again, json.loads(json.dumps(structure(small))))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(answer(again.eval()), answer(small), rtol=0, atol=0)


def test_blocks_without_a_way_around_them_stay() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 16, 3, padding=1)
            self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block(self.stem(x)).mean(dim=(2, 3)))

    groups = find_groups(Plain().eval(), EXAMPLE, multiple=8)
    assert not any(group.is_block for group in groups.found.values())


def test_the_given_network_is_not_changed() -> None:
    module = net()
    before = answer(module, IMAGES)
    slim(module, find_groups(module, EXAMPLE, multiple=4).found.values(), {"stem": range(4)})
    torch.testing.assert_close(answer(module, IMAGES), before, rtol=0, atol=0)
