"""Channels are removed, and what is left is the network that the removed channels leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import Net, artifact, context, net
from torch import Tensor, nn

from edgepress.stages.prune import Prune
from edgepress.stages.pruning import count_macs, count_parameters, prune, remove_channels
from edgepress.stages.structure import resize_, structure
from edgepress.targets.errors import StageError

EXAMPLE = torch.zeros(1, 1, 8, 8)
IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def removed(module: nn.Module, *, ratio: float = 0.5, multiple: int = 1, **settings: Any) -> nn.Module:
    pruned, _ = remove_channels(module, EXAMPLE, Prune(ratio=ratio, **settings), multiple=multiple)
    return pruned


def answer(module: nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        return module.eval()(images)  # type: ignore[no-any-return]


def test_pruning_leaves_fewer_channels_and_still_answers() -> None:
    pruned = removed(net())
    assert count_macs(pruned, EXAMPLE) < 0.6 * count_macs(net(), EXAMPLE)
    assert answer(pruned).shape == (4, 4)


def test_the_given_network_is_not_changed() -> None:
    module = net()
    before = answer(module)
    removed(module)
    torch.testing.assert_close(answer(module), before, rtol=0, atol=0)


def test_the_pruned_network_equals_the_original_with_those_channels_masked() -> None:
    """Silence half of an inner layer; magnitude pruning must take exactly those channels, and change nothing."""
    module = net()
    with torch.no_grad():
        module.block.conv1.weight[::2] = 0
        module.block.bn1.weight[::2] = 0
        module.block.bn1.bias[::2] = 0
        module.block.conv2.weight[:, ::2] = 0
    pruned = removed(module, ratio=0.5, exclude=("stem", "block.conv2"))
    assert pruned.get_submodule("block.conv1").weight.shape[0] == 8
    torch.testing.assert_close(answer(pruned), answer(module), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("multiple", [2, 4, 8])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
def test_widths_are_multiples_of_what_the_hardware_likes(multiple: int, ratio: float) -> None:
    pruned = removed(net(width=32), ratio=ratio, multiple=multiple)
    widths = [part.out_channels for part in pruned.modules() if isinstance(part, nn.Conv2d)]
    assert all(width % multiple == 0 for width in widths)
    assert sum(widths) < 3 * 32


@pytest.mark.parametrize("multiple", [1, 8])
def test_a_higher_ratio_never_takes_less_away(multiple: int) -> None:
    """One layer ranks so low that all of it would go; its best channels stay instead of all."""
    module = net(width=32)
    with torch.no_grad():
        module.block.conv1.weight[8:] *= 0.01
        module.block.bn1.weight[8:] *= 0.01
    macs = [count_macs(removed(module, ratio=ratio, multiple=multiple), EXAMPLE) for ratio in (0.3, 0.5, 0.7, 0.8, 0.9)]
    assert macs == sorted(macs, reverse=True)
    assert macs[-1] < 0.25 * count_macs(module, EXAMPLE)


def test_the_number_of_classes_survives_any_ratio() -> None:
    assert answer(removed(net(width=32), ratio=0.75)).shape == (4, 4)


class PaddedShortcut(nn.Module):
    """The CIFAR ResNet's parameter-free shortcut, which the dependency graph misreads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.conv1 = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        x = F.relu(shortcut + self.conv2(F.relu(self.conv1(x))))
        return self.head(x.mean(dim=(2, 3)))


def test_padded_shortcuts_are_pruned_inside_their_branches() -> None:
    torch.manual_seed(0)
    module = PaddedShortcut()
    pruned, scope = remove_channels(module, EXAMPLE, Prune(ratio=0.5), multiple=8)
    assert scope == "layers inside one branch"
    assert pruned.get_submodule("conv1").weight.shape[0] == 16
    assert answer(pruned).shape == (4, 4)


def test_excluded_modules_keep_their_channels() -> None:
    pruned = removed(net(), exclude=("block.conv1",))
    assert pruned.get_submodule("block.conv1").weight.shape[0] == 16


def test_an_unknown_name_in_exclude_is_refused_with_its_neighbour() -> None:
    with pytest.raises(StageError, match="did you mean 'block.conv1'"):
        removed(net(), exclude=("block.con1",))


def test_a_network_with_nothing_to_remove_is_refused_with_a_way_out() -> None:
    with pytest.raises(StageError, match=r"prune=off"):
        removed(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))


def test_macs_are_counted_as_by_hand() -> None:
    by_hand = 8 * 8 * 16 * 9 * (1 + 16 + 16) + 16 * 4
    assert count_macs(net(), EXAMPLE) == by_hand


def test_a_pruned_network_is_built_again_from_its_original_and_plain_data() -> None:
    pruned = removed(net())
    facts = json.loads(json.dumps(structure(pruned)))
    again = Net()
    resize_(again, facts)
    again.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(answer(again), answer(pruned), rtol=0, atol=0)
    assert count_parameters(again) == count_parameters(pruned)


def test_a_structure_of_another_network_is_refused() -> None:
    with pytest.raises(StageError, match="block.conv1"):
        resize_(nn.Linear(2, 2), structure(net()))


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_recovery_brings_the_accuracy_back(tmp_path: Path, importance: str) -> None:
    from edgepress.stages.lesson import Lesson
    from edgepress.stages.teaching import teach

    surroundings = context(tmp_path / "a")
    teacher = net(width=32)
    lesson = Lesson(epochs=8, batch_size=32, lr=5e-3, optimizer="adamw", weight_decay=0, ce=1, kd=0, temperature=1)
    teach(teacher, lesson, surroundings, teacher=None)
    settings = Prune(ratio=0.5, importance=importance, epochs=12, lr=5e-3, batch_size=32)  # type: ignore[arg-type]
    after = prune(settings, artifact(teacher.eval()), context(tmp_path / "b"))
    metrics = after.records[-1].metrics
    assert metrics["macs_after"] < 0.7 * metrics["macs_before"]
    assert metrics["validation_accuracy"] >= metrics["validation_before"] - 5
    assert metrics["validation_accuracy"] > metrics["validation_pruned"]
    assert len(after.records[-1].curves["kd"]) == 12


class Wrapped(nn.Module):
    """A width that is computed from the layer inside, as in timm's ConvNormAct."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 1)

    @property
    def out_channels(self) -> int:
        return self.conv.out_channels


def test_a_width_that_follows_from_the_layers_inside_is_not_stored_and_comes_back_with_them() -> None:
    fresh = Wrapped(8)
    resize_(fresh, structure(Wrapped(4)))
    assert fresh.out_channels == 4
    assert fresh.conv(torch.zeros(1, 3, 2, 2)).shape == (1, 4, 2, 2)
