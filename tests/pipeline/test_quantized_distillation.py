"""Training in INT8 as a whole job: with data and without, in phases and with learned scales, into the runtime."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from nets import net
from nets import stripes as quarters
from without_data import MEAN, SHAPE, STD, teacher

import edgepress
from edgepress.stages.quantize import Quantize

PAGE = Path(__file__).parent.parent.parent / "docs" / "training-int8.md"
FEW = {"images": 128, "width": 4, "latent": 8, "batch": 32, "rounds": 4, "restarts": 1, "steps": 2}
QUICK = {"prune": "off", "profile.seconds": 0.2, "profile.all_cores": False, "profile.memory": False}
PHASES = {"phases": "qkd", "epochs": 4, "ranges": "learned", "ce": 0.5}
ALONE: dict[str, dict[str, Any]] = {  # each by itself, as the page has them
    "SQAKD": {},
    "quantised distillation": {"ce": 0.5, "kd": 0.5, "temperature": 4, "teacher": "model"},
    "LSQ": {"ranges": "learned"},
    "differentiable quantisation": {"ranges": "learned", "trains": "ranges"},
}


@pytest.mark.parametrize("shown", re.findall(r"`quantize: (\{.*?\})`", PAGE.read_text(encoding="utf-8")))
def test_every_setting_that_the_page_shows_holds(shown: str) -> None:
    assert Quantize(**yaml.safe_load(shown)).problem() is None


def test_the_page_shows_settings() -> None:
    assert PAGE.read_text(encoding="utf-8").count("`quantize: {") >= 5


def job(out: Path, *, has_data: bool, how: dict[str, Any] = PHASES, method: str = "gdfq", **more: Any) -> Any:
    given: dict[str, Any] = {"model": net(), "data": {"train": quarters(256, seed=0), "test": quarters(128, seed=1)}}
    settings: dict[str, Any] = {**QUICK, "quantize.mode": "qat", "quantize.lr": 1e-3, **more}
    settings |= {f"quantize.{key}": value for key, value in how.items()}
    if not has_data:
        given = {"model": teacher(norms=True, width=24), "data": "none"}
        settings |= {"data.shape": list(SHAPE), "data.mean": list(MEAN), "data.std": list(STD)}
        settings["data.synthesis"] = {**FEW, "method": method}
    return edgepress.compress(
        **given, target="openvino-cpu", budget={"accuracy_drop": 100.0}, settings=settings, out=out, quiet=True
    )


@pytest.mark.slow
@pytest.mark.device
@pytest.mark.parametrize("has_data", [True, False])
def test_phases_and_learned_scales_go_from_recipe_to_runtime(tmp_path: Path, *, has_data: bool) -> None:
    found = job(tmp_path / "out", has_data=has_data)
    report = json.loads((found.folder / "report.json").read_text())
    stage = next(stage for stage in report["stages"] if stage["name"] == "quantize")
    assert (stage["settings"]["phases"], stage["settings"]["ranges"]) == ("qkd", "learned")
    metrics = stage["metrics"]
    assert sum(name.endswith(("_self_studying", "_co_studying", "_tutoring")) for name in metrics) == 3
    if has_data:  # without, what is told is agreement
        assert metrics["validation_accuracy"] >= metrics["validation_calibrated"]
    assert len(stage["curves"]["validation"]) == 4
    (int8,) = (variant for variant in report["variants"] if variant["precision"] == "int8")
    assert int8["parity"]["argmax_agreement"] >= 0.95
    assert int8["accuracy"]["value"] > 0
    assert not list(found.folder.rglob("training.safetensors"))
    assert not list(found.folder.rglob("*studying"))
    again = job(tmp_path / "out", has_data=has_data)  # learned scales are read back
    reused = json.loads((again.folder / "report.json").read_text())["stages"]
    assert next(one["reused"] for one in reused if one["name"] == "quantize")


@pytest.mark.slow
@pytest.mark.device
@pytest.mark.parametrize("has_data", [True, False])
@pytest.mark.parametrize("how", ALONE.values(), ids=list(ALONE))
def test_each_way_alone_goes_from_recipe_to_runtime(tmp_path: Path, how: dict[str, Any], *, has_data: bool) -> None:
    found = job(tmp_path, has_data=has_data, how={"epochs": 2, **how}, method="auto", stages=["quantize", "export"])
    report = json.loads((found.folder / "report.json").read_text())
    (stage,) = (stage for stage in report["stages"] if stage["name"] == "quantize")
    assert {key: stage["settings"][key] for key in how if key != "teacher"} == {
        key: value for key, value in how.items() if key != "teacher"
    }
    assert len(stage["curves"]["validation"]) == 2
    assert set(stage["curves"]) >= {"kd"}
    assert ("ce" in stage["curves"]) == (has_data and "ce" in how)  # without data a label is what kd imitates in full
    (int8,) = (variant for variant in report["variants"] if variant["precision"] == "int8")
    assert int8["parity"]["argmax_agreement"] >= 0.95
