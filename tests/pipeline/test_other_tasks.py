"""Texts, masks, several labels and numbers go the whole way: trained, quantised, exported, measured, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from other_tasks import LENGTH, VOCABULARY, network, told

from edgepress import compress
from edgepress.pipeline.api import Result
from edgepress.pipeline.checks import check_figures
from edgepress.stages.contract import InputContract, Tokens
from edgepress.stages.tasks import TASKS
from edgepress.targets import model_input

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = {
    "train": {"epochs": 10, "lr": 0.01, "batch_size": 32},
    "prune": "off",
    "quantize": {"mode": "qat", "fallback": False, "epochs": 1, "lr": 1e-3, "batch_size": 32},
    "profile": {"seconds": 0.2, "memory": False, "all_cores": False},
}
READ_LAYERS = ("text", "segmentation")  # one network of each kind: of the others nothing new would be read
REACHED = {"text": 70, "tokens": 55, "segmentation": 75, "multilabel": 70, "regression": 50}

pytestmark = pytest.mark.slow


def run(task: str, out: Path, *, target: str, **settings: Any) -> Result:
    return compress(
        model=network(task), data=told(task), target=target, out=out, quiet=True, settings={**QUICK, **settings}
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for every task: the second target finds the network that was trained for the first."""
    return tmp_path_factory.mktemp("tasks")


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
@pytest.mark.parametrize("task", REACHED)
def test_a_task_goes_the_whole_way(task: str, target: str, out: Path) -> None:
    measured = {**QUICK["profile"], "layers": task in READ_LAYERS}
    result = run(task, out / task, target=target, profile=measured)
    report = result.report
    assert report.data is not None
    assert (report.data.task, report.data.metric) == (task, TASKS[task].metric)
    variants = {variant.name: variant for variant in report.variants}
    assert {"baseline", "int8"} <= set(variants)
    for variant in variants.values():
        assert variant.latency_ms is not None, variant.warnings
        assert variant.accuracy is not None
        assert variant.accuracy.value > REACHED[task]
        assert variant.accuracy.metric == TASKS[task].metric
        assert variant.accuracy.ci95[0] <= variant.accuracy.value <= variant.accuracy.ci95[1]
        assert variant.parity is not None
    assert variants["baseline"].parity is not None
    assert variants["baseline"].parity.argmax_agreement == 1.0
    assert variants["int8"].int8 is not None
    assert variants["int8"].int8["int8_layers"] > 0
    assert (variants["int8"].layers is not None) == (task in READ_LAYERS)
    assert all(check.ok is not False for check in check_figures(report))


def test_the_exported_file_of_texts_says_what_it_takes(tmp_path: Path) -> None:
    result = run("text", tmp_path, target="onnxruntime-cpu", quantize="off", profile="off")
    path = result.folder / "models" / "baseline.onnx"
    model = onnx.load(str(path))
    contract = InputContract.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    assert (contract.dtype, contract.shape, contract.task) == ("int64", (LENGTH,), "text")
    assert contract.preprocessing == Tokens(length=LENGTH, vocabulary=VOCABULARY, pad=0)
    assert [entry.name for entry in model.graph.input] == ["input"]
    found = model_input.read(path)
    assert (found.shape, found.vocabulary) == ((1, LENGTH), VOCABULARY)
    assert found.random().max() < VOCABULARY


def test_the_renderings_name_the_task_s_own_figure_and_samples(tmp_path: Path) -> None:
    result = run("tokens", tmp_path, target="onnxruntime-cpu", quantize="off")
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    text = (result.folder / "report.md").read_text(encoding="utf-8")
    assert "Macro F1" in page
    assert "128 test texts" in page
    assert "macro F1 on 128 test texts" in text
    assert "| macro F1 |" in text
    assert "accuracy by position" in page


def test_a_student_of_texts_is_distilled_pruned_and_found_again(tmp_path: Path) -> None:
    def again() -> Result:
        return compress(
            model=network("text"), student=network("text", seed=5, width=8), data=told("text"), out=tmp_path, quiet=True,
            target="openvino-cpu",
            settings={
                **QUICK, "distill": {"epochs": 10, "lr": 0.01, "batch_size": 32},
                "prune": {"ratio": 0.3, "epochs": 2, "lr": 0.005, "batch_size": 32},
            },
        )  # fmt: skip

    first = again()
    assert {"baseline", "distilled", "pruned", "int8"} <= {variant.name for variant in first.report.variants}
    assert not any(stage.reused for stage in first.report.stages)
    second = again()
    assert all(stage.reused for stage in second.report.stages if not stage.skipped and stage.name != "profile")


def test_the_example_of_texts_runs_as_its_recipe_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = compress(
        EXAMPLES / "text.yaml", out=tmp_path, quiet=True, target="onnxruntime-cpu",
        settings={"data.limit": 300, "train.epochs": 1, "distill.epochs": 1, "quantize.epochs": 0, **measured()},
    )  # fmt: skip
    assert {"baseline", "distilled", "int8"} <= {variant.name for variant in result.report.variants}
    facts = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert facts["data"]["samples"] == "texts"
    assert {"macro F1, %"} <= set(facts["variants"][0]["accuracy"]["also"])


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_a_vision_transformer_goes_the_whole_way(target: str, out: Path) -> None:
    arguments = {"size": 8, "channels": 1, "num_classes": 10, "patch": 2}
    sizes = {f"{role}.arguments": arguments for role in ("model", "student")}
    result = compress(
        model=f"{EXAMPLES / 'vit.py'}:teacher", student=f"{EXAMPLES / 'vit.py'}:student", data="builtin:digits",
        out=out / "vit", quiet=True, target=target,
        settings={
            **sizes, "train": {"epochs": 6, "lr": 1e-3, "batch_size": 64}, "distill": {"epochs": 8, "lr": 2e-3, "batch_size": 64},
            "prune": "off", "quantize": {"epochs": 0}, **measured(),
        },
    )  # fmt: skip
    variants = {variant.name: variant for variant in result.report.variants}
    for name in ("baseline", "distilled", "int8"):
        assert variants[name].accuracy.value > 60  # type: ignore[union-attr]
        assert variants[name].latency_ms is not None
    assert variants["int8"].parity.argmax_agreement > 0.9  # type: ignore[union-attr]


def measured() -> dict[str, Any]:
    return {"profile.seconds": 0.2, "profile.memory": False, "profile.all_cores": False, "profile.layers": False}
