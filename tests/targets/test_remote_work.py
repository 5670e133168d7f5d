"""What a board is asked to do: the same words to TensorRT as a bundle has, and inputs as its version reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from token_model import tokens

from edgepress.targets import profiles
from edgepress.targets.bundle import write_bundle
from edgepress.targets.jobs import Engine
from edgepress.targets.remote import work
from edgepress.targets.remote.boards import BoardFacts

Builder = Callable[..., Path]
Images = NDArray[np.float32]
NANO, ORIN = profiles.load("jetson-nano"), profiles.load("jetson-orin-nano")


def planned(paths: dict[str, Path], samples: NDArray[Any], *, code: str, **options: Any) -> work.Work:
    precision = options.pop("precision", "fp32")
    runtime = "tensorrt" if code else "onnxruntime"
    engines = [Engine(name=name, path=path, runtime=runtime, precision=precision) for name, path in paths.items()]
    facts = BoardFacts(python="3.6.9", home="/h", boot_id="b", tensorrt_code=code or None)
    profile = ORIN if code else profiles.load("onnxruntime-cpu")
    return work.plan(engines, **{"profile": profile, "facts": facts, "inputs": samples, "seconds": 0.5, **options})


@pytest.mark.parametrize(("code", "kind"), [("8201", "int32"), ("8601", "int32"), ("100300", "int64"), ("", "int64")])
def test_tokens_go_there_as_that_version_reads_them(tmp_path: Path, code: str, kind: str) -> None:
    rows = np.arange(18).reshape(3, 6)
    job = planned({"reader": tokens(tmp_path)}, rows, code=code)
    assert job.files["inputs/sample.bin"] == rows[:1].astype(kind).tobytes()
    sent = b"".join(bytes(job.files[name]) for name in job.manifest["evaluation"]["files"])  # type: ignore[arg-type]
    assert sent == rows.astype(kind).tobytes()
    assert job.manifest["input"]["dtype"] == kind


def test_numbers_go_there_as_float32_whatever_they_were(network: Builder, images: Images) -> None:
    job = planned({"a": network()}, images[:2].astype(np.float64), code="8201")
    assert job.files["inputs/00001.bin"] == images[1:2].tobytes()


def test_every_engine_is_fed_at_the_input_that_its_own_file_names(tmp_path: Path) -> None:
    job = planned(
        {"one": tokens(tmp_path, name="ids"), "two": tokens(tmp_path, name="words")}, np.ones((1, 6), int), code="8201"
    )
    for engine, name in zip(job.manifest["engines"], ("ids", "words"), strict=True):
        assert engine["input"] == name
        assert engine["shapes"] == [f"--shapes={name}:1x6"]
        assert f"--loadInputs={name}:inputs/sample.bin" in engine["time"]


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_and_a_job_build_the_same_engine(
    network: Builder, images: Images, tmp_path: Path, batch: int | str, precision: str
) -> None:
    path = network("net", batch=batch, activations=np.int8 if precision == "int8" else None)
    made = [Engine(name="net", path=path, runtime="tensorrt", precision=precision)]
    write_bundle(tmp_path / "bundle", made, profile=ORIN, samples=images)
    carried = json.loads((tmp_path / "bundle/manifest.json").read_text())["engines"][0]
    [sent] = planned({"net": path}, images, code="100300", precision=precision).manifest["engines"]
    assert (carried["precision"], carried["build"]) == (precision, sent["build"])
    assert any(flag.startswith("--shapes") for flag in sent["build"]) == (batch == "n")


def test_each_file_is_opened_once(network: Builder, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    load = onnx.load
    monkeypatch.setattr(onnx, "load", lambda path, **options: opened.append(path) or load(path, **options))  # type: ignore[func-returns-value]
    paths = {"a": network("a"), "b": network("b")}
    planned(paths, images, code="100300")
    assert opened == [str(path) for path in paths.values()]


def test_the_board_s_own_version_decides_and_not_the_profile_s(network: Builder, images: Images) -> None:
    [engine] = planned({"a": network()}, images[:1], code="8201", profile=ORIN).manifest["engines"]
    assert "--buildOnly" in engine["build"]
    unknown = BoardFacts(python="3.6.9", home="/h", boot_id="b")
    [engine] = planned({"a": network()}, images[:1], code="8201", profile=ORIN, facts=unknown).manifest["engines"]
    assert "--skipInference" in engine["build"]
