"""The main job from Python, on networks and images that are in memory."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from nets import net, stripes
from noise import code_within_budget
from torch import nn

import edgepress
from edgepress.targets.errors import RecipeError

QUICK = {
    "prune.ratio": 0.5, "prune.epochs": 3, "prune.lr": 5e-3, "prune.batch_size": 32, "quantize.epochs": 1,
    "profile.seconds": 1, "profile.all_cores": False, "profile.memory": False, "data.mean": [0.3], "data.std": [0.25],
}  # fmt: skip


def trained() -> nn.Module:
    module = net(width=32)
    images, labels = stripes(512, seed=5)
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    module.train()
    for _ in range(6):
        for place in range(0, 512, 32):
            loss = nn.functional.cross_entropy(
                module((images[place : place + 32] / 255 - 0.3) / 0.25), labels[place : place + 32]
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return module.eval()


@pytest.mark.slow
def test_a_module_and_arrays_in_memory_become_a_measured_model(tmp_path: Path) -> None:
    module = trained()
    before = copy.deepcopy(module.state_dict())
    images, labels = stripes(600, seed=6)
    result = edgepress.compress(
        model=module,
        data={"train": (images[:400], labels[:400]), "test": (images[400:].numpy(), labels[400:].numpy())},
        target="openvino-cpu",
        budget={"accuracy_drop": 50},
        settings=QUICK,
        out=tmp_path / "out",
        quiet=True,
    )
    assert result.exit_code == code_within_budget(result.report)
    assert result.met is (True if result.exit_code == 0 else None)
    assert result.path.is_file()
    assert result.chosen.accuracy is not None
    assert result.chosen.accuracy.n == result.report.data.test == 160  # of 200, 40 chose
    assert result.chosen.accuracy.value > 60
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    skipped = {stage.name: stage.skipped for stage in result.report.stages}
    assert "the student is the model itself" in str(skipped["distill"])


def test_wrong_arguments_are_refused_like_a_wrong_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'ratio'"):
        edgepress.compress(model=net(), data="builtin:digits", settings={"prune.ratoi": 0.5}, out=tmp_path, quiet=True)


def test_the_module_offers_what_it_says() -> None:
    assert all(hasattr(edgepress, name) for name in edgepress.__all__)
    with pytest.raises(AttributeError, match="compres"):
        edgepress.compres  # noqa: B018
