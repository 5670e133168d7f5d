"""What is measured, and what is refused before it fills the memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nets import context

from edgepress.stages import profiling
from edgepress.stages.artifact import ExportedFile
from edgepress.targets import cpu
from edgepress.targets.errors import StageError

NONE = np.zeros((0, 1), np.float32)  # samples are for files by types, which a CPU has none of


def file(variant: str, precision: str) -> ExportedFile:
    path = Path(f"{variant}.onnx")
    return ExportedFile(
        variant=variant, precision=precision, path=path.with_suffix(".xml"), onnx=path, description="", parameters=1, macs=1, parity={}
    )  # fmt: skip


def test_images_that_would_fill_the_memory_are_refused_with_the_number_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "MOST_IMAGE_BYTES", 4 * 64 * 10)
    surroundings = context(tmp_path)
    with pytest.raises(StageError, match="set data.limit to 10 or fewer"):
        profiling._images(surroundings.data.test, surroundings)


@pytest.mark.parametrize("has", [True, False])
def test_float_files_get_a_bfloat16_twin_where_the_cpu_computes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: has)
    monkeypatch.setattr(cpu, "has_float16", lambda: False)
    engines = profiling.engines_for((file("baseline", "fp32"), file("int8", "int8")), context(tmp_path), samples=NONE)
    assert list(engines) == (["baseline", "baseline-bf16", "int8"] if has else ["baseline", "int8"])
    assert engines["int8"].precision == "int8"
    assert {engine.path.suffix for engine in engines.values()} == {".xml"}


def test_a_stand_in_with_another_runtime_runs_the_onnx_file_in_float(tmp_path: Path) -> None:
    engines = profiling.engines_for((file("pruned", "fp16"),), context(tmp_path, target="jetson-nano"), samples=NONE)
    assert engines["pruned"].path.suffix == ".onnx"
    assert engines["pruned"].precision == "fp32"  # ONNX Runtime computes a float16 file so on a CPU
    assert engines["pruned"].runtime == "onnxruntime"


@pytest.mark.parametrize("fits", [True, False])
def test_float16_is_a_candidate_where_the_cpu_computes_in_it_and_no_number_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: True)
    monkeypatch.setattr(cpu, "has_float16", lambda: True)
    known = replace(file("pruned", "fp32"), fits_float16=fits)
    engines = profiling.engines_for((known,), context(tmp_path), samples=NONE)
    assert {name: engine.precision for name, engine in engines.items()} == {
        "pruned": "fp32",
        "pruned-bf16": "bf16",
        **({"pruned-fp16": "fp16"} if fits else {}),
    }
