"""Networks that an old TensorRT has no operators for become files that it reads, or are refused with the layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from nets import SHAPE, context, net
from torch import Tensor, nn

from edgepress.stages.exporting import refuse_what_cannot_be_built
from edgepress.stages.onnx_file import changes_of, write_onnx
from edgepress.targets.errors import StageError
from edgepress.targets.operators import check
from edgepress.targets.runtimes import target


class Modern(nn.Module):
    """What newer networks are made of: none of it is an operator of TensorRT 8.2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.act = nn.Sequential(nn.Hardswish(), nn.Mish(), nn.GELU(approximate="tanh"))
        self.groups = nn.GroupNorm(2, 8)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(self.act(self.stem(x))).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + F.scaled_dot_product_attention(q, k, v)  # torch writes it from operator set 14 on
        return self.head(F.gelu(torch.tril(x)).mean(dim=1))


class Sampled(nn.Module):
    """A layer that no older operators can say."""

    def __init__(self) -> None:
        super().__init__()
        self.warp = Warp()
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.warp(x).flatten(1))


class Warp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(torch.eye(2, 3)[None], [1, 1, 8, 8], align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


def images(count: int = 8) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-4), (True, 2e-2)])
def test_a_modern_network_becomes_a_file_for_8_2_that_answers_as_torch_does(
    half: bool, tolerance: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, path = Modern().eval(), tmp_path / "modern.onnx"
    write_onnx(
        module, path, example=images(), opset=13, dynamic_batch=False, metadata={}, half=half, tensorrt="8.2.1"
    )  # fmt: skip
    assert check(path, version="8.2.1", has_int8=False) == []
    assert [entry.version for entry in onnx.load(path).opset_import if entry.domain == ""] == [13]
    assert "operator set 14 as 13" in changes_of(path)
    session = target("onnxruntime").load(path, precision="fp32", threads=1)
    got = np.concatenate([session(image[None])[0] for image in images().numpy()])
    with torch.no_grad():
        np.testing.assert_allclose(got, module(images()).numpy(), rtol=tolerance, atol=tolerance)


def test_a_file_that_needed_no_rewriting_says_nothing_of_one(tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    write_onnx(net(), path, example=images(), opset=13, dynamic_batch=False, metadata={}, tensorrt="8.2.1")
    assert changes_of(path) == ""


def test_a_network_that_cannot_be_said_is_refused_before_any_training_with_its_layer(tmp_path: Path) -> None:
    networks = {"baseline": Sampled().eval()}
    with pytest.raises(StageError, match=r"layer 'warp', node '/module/warp/GridSample'.* does not have it yet"):
        refuse_what_cannot_be_built(networks, context(tmp_path, target="jetson-nano"))
    refuse_what_cannot_be_built(networks, context(tmp_path, target="jetson-orin-nano"))


def test_torch_prints_no_network_where_an_operator_is_too_new_for_the_set(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It would do so from C++, past Python's own stdout."""
    path = tmp_path / "sampled.onnx"
    with pytest.raises(StageError, match="grid_sampler.* opset version 13 .*`opset: 16` in a profile of your own"):
        write_onnx(Sampled(), path, example=images(), opset=13, dynamic_batch=False, metadata={})
    with pytest.raises(StageError, match=r"GridSample.* does not have it yet"):
        write_onnx(Sampled(), path, example=images(), opset=13, dynamic_batch=False, metadata={}, tensorrt="8.2.1")
    assert capfd.readouterr() == ("", "")
    assert not path.exists()


def test_where_tensorrt_does_not_run_it_nothing_is_refused(tmp_path: Path) -> None:
    refuse_what_cannot_be_built({"baseline": Sampled().eval()}, context(tmp_path, target="openvino-cpu"))
    assert list(tmp_path.iterdir()) == []
