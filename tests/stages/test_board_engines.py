"""Which engines a board builds of the exported files, and of which types these are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import SHAPE, net
from numpy.typing import NDArray
from torch import zeros

from edgepress.stages.artifact import ExportedFile
from edgepress.stages.on_boards import engines_on
from edgepress.stages.onnx_file import write_onnx
from edgepress.targets import profiles
from edgepress.targets.half import is_half
from edgepress.targets.remote.boards import BoardFacts

ORIN = profiles.load("jetson-orin-nano")


def exported(folder: Path, *, fits_float16: bool = True, opset: int = 17) -> ExportedFile:
    path = folder / "baseline.onnx"
    write_onnx(net(), path, example=zeros(1, *SHAPE), opset=opset, dynamic_batch=False, metadata={})
    return ExportedFile(
        variant="baseline", precision="fp32", path=path, onnx=path, description="", parameters=1, macs=1, parity={},
        fits_float16=fits_float16,
    )  # fmt: skip


def board(version: str) -> BoardFacts:
    return BoardFacts(python="3", home="/", boot_id="1", tensorrt_code=version)


@pytest.fixture
def samples() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)


def test_a_flag_makes_the_float16_engine_of_the_same_file(tmp_path: Path, samples: NDArray[np.float32]) -> None:
    file = exported(tmp_path)
    plain, half = engines_on(board("100300"), [file], ORIN, samples=samples)
    assert (plain.name, plain.precision, plain.path) == ("baseline", "fp32", file.onnx)
    assert (half.name, half.precision, half.path) == ("baseline-fp16", "fp16", file.onnx)


def test_what_overflows_gets_no_float16_engine_by_a_flag(tmp_path: Path, samples: NDArray[np.float32]) -> None:
    engines = engines_on(board("100300"), [exported(tmp_path, fits_float16=False)], ORIN, samples=samples)
    assert [engine.name for engine in engines] == ["baseline"]


def test_where_types_decide_the_float16_engine_has_a_file_of_its_own(
    tmp_path: Path, samples: NDArray[np.float32]
) -> None:
    plain, half = engines_on(board("110100"), [exported(tmp_path, opset=19)], ORIN, samples=samples)
    assert (half.name, half.precision) == ("baseline-fp16", "fp16")
    assert half.path != plain.path
    assert is_half(onnx.load(half.path))
    assert not is_half(onnx.load(plain.path))
