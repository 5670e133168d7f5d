"""Adaptive pooling whose sizes do not divide the input's: exported, and it answers as torch does."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.pooling_export import averages


@pytest.mark.parametrize(
    ("shape", "net", "products"),
    [
        ((3, 2, 2), nn.AdaptiveAvgPool2d((7, 5)), 2),  # VGG's, on images of 64
        ((3, 9, 10), nn.AdaptiveAvgPool2d((None, 4)), 2),
        ((3, 11), nn.AdaptiveAvgPool1d(4), 1),
        ((3, 10, 6), nn.AdaptiveAvgPool2d(2), 0),  # divides: an ordinary pooling
        ((3, 10, 7), nn.AdaptiveAvgPool2d(1), 0),
    ],
)
def test_pooling_to_any_size_answers_as_torch_does(
    tmp_path: Path, shape: tuple[int, ...], net: nn.Module, products: int
) -> None:
    module, x = nn.Sequential(nn.ReLU(), net).eval(), torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    model = write_onnx(module, tmp_path / "x.onnx", example=x, opset=13, dynamic_batch=False, metadata={})
    assert [node.op_type for node in model.graph.node].count("MatMul") == products
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    for one in x.split(1):
        (answer,) = session.run(None, {"input": one.numpy()})
        assert torch.allclose(torch.from_numpy(answer), module(one), atol=1e-6)


def test_pooling_to_any_size_keeps_an_open_batch(tmp_path: Path) -> None:
    module, x = nn.AdaptiveAvgPool2d(3), torch.randn(4, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    write_onnx(module, tmp_path / "x.onnx", example=x, opset=13, dynamic_batch=True, metadata={})
    (answer,) = onnxruntime.InferenceSession(str(tmp_path / "x.onnx")).run(None, {"input": x.numpy()})
    assert torch.allclose(torch.from_numpy(answer), module(x), atol=1e-6)


@pytest.mark.parametrize(("size", "wanted"), [(2, 7), (9, 4), (6, 3), (5, 5), (1, 3)])
def test_each_mean_is_of_the_values_that_torch_takes(size: int, wanted: int) -> None:
    matrix, x = averages(size, wanted), torch.arange(float(size)) ** 2
    assert torch.allclose(matrix @ x, nn.functional.adaptive_avg_pool1d(x[None], wanted)[0])
    assert torch.allclose(matrix.sum(1), torch.ones(wanted))


def test_nothing_is_left_registered_in_torch(tmp_path: Path) -> None:
    module, x = nn.AdaptiveAvgPool2d(3), torch.zeros(1, 2, 5, 7)
    write_onnx(module, tmp_path / "x.onnx", example=x, opset=13, dynamic_batch=False, metadata={})
    with pytest.raises(torch.onnx.errors.SymbolicValueError, match="not factor"), pytest.warns():
        torch.onnx.export(module, (x,), str(tmp_path / "y.onnx"), dynamo=False, opset_version=13)
