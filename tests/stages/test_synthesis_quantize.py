"""Integers without data: images that were made calibrate and train, and move no statistics of data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nets import artifact
from torch import Tensor, nn
from without_data import context, hurry, opened, settings

from edgepress.stages.quantization.qat import quantize
from edgepress.stages.quantization.switching import resting_norms
from edgepress.stages.quantize import Quantize


class Before(nn.Module):
    """A batch norm that stands before its convolution, where nothing folds it, and one that is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(1)
        self.conv, self.folded = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.folded(self.conv(self.bn(x)))).mean(dim=(2, 3)))


def norms(module: nn.Module) -> list[Tensor]:
    return [part.running_mean.clone() for part in module.modules() if isinstance(part, nn.BatchNorm2d)]  # type: ignore[union-attr]


def test_made_images_train_weights_in_integers_and_leave_the_statistics_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    torch.manual_seed(0)
    module = Before().eval()
    for part in (module.bn, module.folded):
        part.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
    data = opened(settings(method="fastdfkd"), module, tmp_path / "cache")
    start = artifact(module)
    start = replace(start, contract=replace(start.contract, classes=data.classes, preprocessing=data.preprocessing))
    made = quantize(Quantize(epochs=5, lr=1e-2, calibration=32, batch_size=16), start, context(data, tmp_path / "work"))
    assert made.form == "quantized"
    assert made.records[-1].metrics["validation_calibrated"] >= 0
    assert len(made.records[-1].curves["validation"]) == 5
    assert not (tmp_path / "work" / "pool").exists()  # the images that there are
    for mine, theirs in zip(norms(made.module), norms(module), strict=True):
        assert torch.equal(mine, theirs)
    assert not any(part._forward_pre_hooks for part in made.module.modules() if isinstance(part, nn.BatchNorm2d))


def test_resting_norms_answer_as_in_eval_mode_though_their_network_trains() -> None:
    torch.manual_seed(0)
    module, x = Before(), torch.randn(8, 1, 8, 8)
    wanted = module.eval()(x)
    with resting_norms(module):
        torch.testing.assert_close(module.train()(x), wanted, rtol=0, atol=0)
    assert not torch.allclose(module.train()(x), wanted)
