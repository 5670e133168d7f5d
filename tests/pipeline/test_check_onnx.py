"""`compress check FILE.onnx --target NAME`: would the board's TensorRT take it?"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from command import run
from onnx import TensorProto, helper


def written(path: Path, kind: str, *, opset: int) -> str:
    taken, given = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("input", "output"))
    node = helper.make_node(kind, ["input"], ["output"], name=f"/module/neck/act/{kind}")
    model = helper.make_model(
        helper.make_graph([node], "one", [taken], [given]), opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )
    onnx.save(model, str(path))
    return str(path)


def test_a_file_that_the_board_takes_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = written(tmp_path / "a.onnx", "Relu", opset=13)
    assert run(capsys, "check", name, "--target", "jetson-nano")[:2] == (
        0, f"{name}: a good ONNX file for TensorRT 8.2.1\n",
    )  # fmt: skip


def test_what_would_be_rewritten_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", written(tmp_path / "a.onnx", "Gelu", opset=20), "--target", "jetson-nano")
    assert code == 0
    assert "Gelu (1) in operators that TensorRT 8.2.1 has, operator set 20 as 13" in out


def test_a_file_that_the_board_refuses_is_told_with_layer_reason_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(capsys, "check", written(tmp_path / "a.onnx", "Det", opset=13), "--target", "jetson-nano")
    assert code == 2
    assert "TensorRT 8.2.1 on NVIDIA Jetson Nano 4 GB refuses it:" in said
    assert "layer 'neck.act', node '/module/neck/act/Det' (Det): TensorRT 8.2.1 has no Det" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "which board is it for?"),
        (("--target", "openvino-cpu"), "checked for TensorRT, and openvino-cpu runs openvino"),
        (("--target", "jetson-nanoo"), "did you mean 'jetson-nano'"),
    ],
)
def test_a_check_without_a_board_that_has_tensorrt_says_what_to_write(
    words: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(capsys, "check", written(tmp_path / "a.onnx", "Relu", opset=13), *words)
    assert code == 2
    assert says in said
