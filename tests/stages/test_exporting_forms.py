"""What is exported in which precision, what would overflow, and what the runtime makes of INT8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import artifact, context, net
from torch import Tensor, nn

from edgepress.stages import exporting
from edgepress.stages.artifact import Artifact, Context, Record
from edgepress.stages.export import Export
from edgepress.stages.exporting import describe, export
from edgepress.stages.fusing import Fusion
from edgepress.stages.overflow import peak
from edgepress.stages.quantization.qat import quantize
from edgepress.stages.quantize import Quantize
from edgepress.targets.errors import StageError

IMAGES = [torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))]


class Squares(nn.Module):
    """The large numbers are between its modules, and gone at the end."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.scale, self.head = factor, nn.Identity(), Loud(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scale(x.flatten(1)[:, :4]))  # type: ignore[no-any-return]


class Loud(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.factor).square() / self.factor**2


def test_a_number_between_two_operators_that_float16_cannot_hold_is_found_with_its_module() -> None:
    found = peak(Squares(1000.0), IMAGES)
    assert not found.fits
    assert found.layer == "head"
    largest = float((1000 * IMAGES[0].flatten(1)[:, :4]).square().max())
    assert found.value == pytest.approx(largest)
    assert "float16 ends at 65504, and head reaches" in found.words()


def test_what_fits_is_told_with_its_largest_value() -> None:
    assert peak(net(), IMAGES).fits
    assert peak(net(), IMAGES).value >= float(IMAGES[0].max())


def test_a_mask_of_minus_infinity_is_no_overflow() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).masked_fill(x.flatten(1) > 0.5, float("-inf")).softmax(1)

    assert peak(Masked(), IMAGES).fits


def exported(work: Path, target: str, *, module: nn.Module | None = None, quantized: bool = False) -> Artifact:
    around = context(work, target=target)
    found = artifact(module)
    if quantized:
        found = quantize(Quantize(epochs=0, calibration=64), found, around)
    return export(Export(), found, around)


def precisions(found: Artifact) -> dict[str, str]:
    return {file.variant: file.precision for file in found.files}


def test_whether_float16_would_hold_is_told_of_every_float_version_that_may_run_in_it(tmp_path: Path) -> None:
    found = exported(tmp_path, "jetson-orin-nano", quantized=True)
    assert precisions(found) == {"baseline": "fp32", "int8": "int8"}
    assert found.records[-1].metrics["largest_activations"]["baseline"]["fits"]
    assert found.files[0].fits_float16


def test_openvino_needs_no_file_for_float16(tmp_path: Path) -> None:
    assert precisions(exported(tmp_path, "openvino-cpu")) == {"baseline": "fp32"}


def test_a_network_that_overflows_stays_in_float32_and_is_told_of(tmp_path: Path) -> None:
    notes: list[str] = []
    around = replace(context(tmp_path, target="jetson-nano"), note=notes.append)
    record = Record(stage="prune", settings={}, seconds=0.0, metrics={})
    found = export(Export(), artifact(Squares(1000.0)).next(record=record, module=Squares(2000.0)), around)
    assert precisions(found) == {"baseline": "fp32", "pruned": "fp32"}
    assert "it stays in float32" in found.files[-1].warnings[0]
    assert not found.files[-1].fits_float16
    assert sum("stays in float32" in note for note in notes) == 2


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu"])
def test_the_record_tells_how_many_layers_the_runtime_runs_in_int8(tmp_path: Path, target: str) -> None:
    found = exported(tmp_path, target, quantized=True)
    counted = found.records[-1].metrics["in_int8"]["int8"]
    assert counted["rounded"] == 4
    assert counted["in_int8"] >= counted["least"] == 3
    assert not found.files[-1].warnings


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"training_skipped": "mode is ptq"}, "calibrated and not trained"),
        ({"best_epoch": 2}, "trained with the rounding in place"),
        ({"best_epoch": 0}, "calibrated; training made it no better"),
        ({"best_epoch": 2, "fallback": {"float_layers": ["a", "b"]}}, "2 layers back in float"),
        ({"training_skipped": "epochs is 0", "fallback": {"float_layers": ["a"]}}, "1 layer back in float"),
    ],
)
def test_an_int8_network_is_described_by_what_was_done_to_it(metrics: dict[str, Any], words: str) -> None:
    record = Record(stage="quantize", settings={}, seconds=0.0, metrics=metrics)
    version = artifact().next(record=record, form="quantized")
    assert describe("int8", version) == f"INT8 weights and activations, {words}"


def test_a_network_that_was_only_calibrated_is_exported_with_these_words(tmp_path: Path) -> None:
    found = exported(tmp_path, "onnxruntime-cpu", quantized=True)
    assert found.files[-1].description == "INT8 weights and activations, calibrated and not trained"


def test_fewer_int8_layers_than_the_profile_expects_are_named(tmp_path: Path) -> None:
    """The layout of TensorRT does not fuse in ONNX Runtime."""
    notes: list[str] = []
    around = context(tmp_path, target="onnxruntime-cpu")
    wrong = replace(around, profile=around.profile.model_copy(update={"qdq": "trt"}), note=notes.append)
    found = export(Export(), quantize(Quantize(epochs=0), artifact(), around_without_note(wrong)), wrong)
    (warning,) = found.files[-1].warnings
    assert warning.startswith("onnxruntime runs 0 of 4 quantised layers in INT8, and the profile expects 3 at least")
    assert "stem" in warning
    assert "block.conv1" in warning
    assert any(warning in note for note in notes)


def test_layers_that_the_runtime_does_not_name_are_not_called_float() -> None:
    """OpenVINO takes small linear layers into subgraphs, and tells no precision of them."""
    found = Fusion(rounded=5, int8=3, in_float=(), least=4, runtime="openvino").warning()
    assert found.endswith(
        "4 at least; it does not name the others as layers of their own, so what they run in is not known"
    )
    named = Fusion(rounded=9, int8=1, in_float=tuple("abcdefgh"), least=8, runtime="openvino").warning()
    assert "; in float: a, b, c, d, e, f and 2 more. Leave those out with quantize.exclude" in named


def test_fewer_int8_layers_end_the_stage_where_the_recipe_says_so(tmp_path: Path) -> None:
    around = context(tmp_path, target="onnxruntime-cpu")
    wrong = replace(around, profile=around.profile.model_copy(update={"qdq": "trt"}))
    quantized = quantize(Quantize(epochs=0), artifact(), wrong)
    with pytest.raises(StageError, match="int8: onnxruntime runs 0 of 4 .*expects 3 at least"):
        export(Export(require_int8=True), quantized, wrong)
    right = quantize(Quantize(epochs=0), artifact(), around)
    assert export(Export(require_int8=True), right, around).files[-1].precision == "int8"


def test_layers_that_only_a_board_can_count_are_not_required_before_it(tmp_path: Path) -> None:
    around = context(tmp_path, target="jetson-orin-nano-super")
    board = replace(around, profile=around.profile.model_copy(update={"device": "ssh://board"}))
    with pytest.raises(StageError, match="that runs on the board alone"):
        export(Export(require_int8=True), artifact(), board)


def around_without_note(around: Context) -> Context:
    return replace(around, note=lambda text: None)


def test_layers_that_were_meant_to_stay_in_float_are_not_held_against_the_runtime(tmp_path: Path) -> None:
    around = context(tmp_path)
    quantized = quantize(Quantize(epochs=0, exclude=("stem",)), artifact(), around)
    counted = export(Export(), quantized, around).records[-1].metrics["in_int8"]["int8"]
    assert counted["rounded"] == 3
    assert "stem" not in counted["in_float"]


def test_a_version_that_cannot_be_exported_is_left_out_and_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "freeze", failing("no such operator"))
    notes: list[str] = []
    around = replace(context(tmp_path), note=notes.append)
    found = export(Export(), quantize(Quantize(epochs=0), artifact(), around), around)
    assert precisions(found) == {"baseline": "fp32"}
    assert found.records[-1].metrics["left_out"] == {"int8": "no such operator"}
    assert "export: int8 is left out: no such operator" in notes


def failing(text: str) -> Callable[..., nn.Module]:
    def fail(*_: object) -> nn.Module:
        raise StageError(text)

    return fail
