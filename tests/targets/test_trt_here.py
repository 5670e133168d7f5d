"""TensorRT on a GPU of this machine, with stand-ins for its package in each generation, for CUDA and for the driver."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_tensorrt import CUDART, DRIVER, GENERATIONS, compiled, fake
from numpy.typing import NDArray

from edgepress.targets import gpu, layers
from edgepress.targets.errors import RuntimeMissingError, StageError
from edgepress.targets.jobs import Engine
from edgepress.targets.measure import measure
from edgepress.targets.runtimes import target
from edgepress.targets.sessions import check_input

pytestmark = pytest.mark.device

Builder = Callable[..., Path]
Images = NDArray[np.float32]
Machine = Callable[..., Path]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {"EDGEPRESS_CUDART": CUDART, "EDGEPRESS_LIBCUDA": DRIVER}
    return {name: compiled(tmp_path_factory.mktemp("cuda"), source) for name, source in found.items()}


@pytest.fixture
def machine(tmp_path: Path, libraries: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A GPU, and that version of TensorRT; returns where engines are kept."""

    def make(version: str, **settings: bool) -> Path:
        for name, path in libraries.items():
            monkeypatch.setenv(name, str(path))
        monkeypatch.setenv("EDGEPRESS_HOME", str(tmp_path / "home"))
        modules = tmp_path / "modules"
        modules.mkdir()
        (modules / "tensorrt.py").write_text(fake(version, **settings))
        monkeypatch.syspath_prepend(str(modules))
        monkeypatch.setenv("PYTHONPATH", str(modules), prepend=":")
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        return tmp_path / "home/engines"

    return make


@pytest.fixture(autouse=True)
def forgotten() -> object:
    """No other test sees the stand-in."""
    yield
    sys.modules.pop("tensorrt", None)


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("version", GENERATIONS)
def test_every_generation_builds_and_answers(
    machine: Machine, network: Builder, images: Images, version: str, batch: int | str
) -> None:
    kept = machine(version)
    runtime = target("tensorrt")
    assert (runtime.unavailable(), runtime.version()) == (None, version)
    session = runtime.load(network(batch=batch), precision="fp32")
    assert (session.input_name, session.input_type) == ("input", "float32")
    assert session.input_shape == (None if batch == "n" else 1, 3, 8, 8)
    sums = images.reshape(len(images), -1).sum(axis=1)
    for count in (1, 5, 1) if batch == "n" else (1,):
        check_input(session, images[:count])
        (answer,) = session(images[:count])
        np.testing.assert_allclose(answer, np.stack([sums, -sums], axis=1)[:count], atol=1e-3)
    (plan,) = kept.glob("*.plan")
    assert json.loads(plan.read_bytes())[1] == (
        [["input", *([n, 3, 8, 8] for n in (1, 1, 64))]] if batch == "n" else []
    )


@pytest.mark.parametrize(
    ("version", "flags"), [("8.2.1", ["INT8", "FP16"]), ("10.3.0", ["INT8", "FP16"]), ("11.1.0", [])]
)
def test_precisions_are_flags_until_types_alone_decide(
    machine: Machine, network: Builder, version: str, flags: list[str]
) -> None:
    kept = machine(version)
    runtime = target("tensorrt")
    told = runtime.int8_layers(network(batch=1), precision="int8")
    assert (told["int8_layers"], told["weighted_layers"]) == (len(flags) // 2, 1)
    (plan,) = kept.glob("*.plan")
    assert json.loads(plan.read_bytes())[0] == flags


def test_an_engine_is_built_once_for_each_precision(machine: Machine, network: Builder) -> None:
    kept = machine("10.3.0")
    for precision in ("fp32", "fp16", "fp32"):
        target("tensorrt").load(network(batch=1), precision=precision)
    assert len(list(kept.iterdir())) == 2


def test_it_is_measured_as_every_other_runtime(machine: Machine, network: Builder, images: Images) -> None:
    machine("10.3.0")
    engines = [
        Engine(name=name, path=network(name, batch=1), runtime="tensorrt", precision="fp32")
        for name in ("baseline", "b")
    ]
    found = measure(engines, inputs={"test": images[:3]}, seconds=0.2, all_cores=False, memory=False, energy=False)
    assert found.versions == {"tensorrt": "10.3.0"}
    for figures in found.figures.values():
        assert figures.failed is None
        assert figures.latency is not None
        assert figures.outputs is not None
        assert figures.outputs["test"].shape == (3, 2)


def test_its_layers_are_timed_by_its_profiler(machine: Machine, network: Builder, images: Images) -> None:
    machine("10.3.0")
    engine = Engine(name="a", path=network(batch=1), runtime="tensorrt", precision="int8")
    found = layers.read(engine, images[:1], seconds=0.0)
    assert [(one.node, one.ms, one.precision, one.role) for one in found.layers] == [
        ("conv + relu", 0.5, "int8", "weighted")
    ]
    assert found.runs == layers.LEAST_RUNS


def test_a_file_that_it_cannot_read_or_build_says_why(machine: Machine, network: Builder, tmp_path: Path) -> None:
    machine("8.6.1")
    path = network(batch=1)
    bad = {
        b"GridSample": "cannot read model.onnx: No importer.*does not know the operator",
        b"too large": "out of memory",
    }
    for word, text in bad.items():
        (tmp_path / "bad").mkdir(exist_ok=True)
        import onnx

        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {"what": word.decode()})
        onnx.save(model, str(tmp_path / "bad/model.onnx"))
        with pytest.raises(StageError, match=text):
            target("tensorrt").load(tmp_path / "bad/model.onnx", precision="fp32")


def test_an_engine_that_cannot_be_loaded_says_why(machine: Machine, network: Builder) -> None:
    machine("10.3.0", broken=True)
    with pytest.raises(
        StageError, match=r"cannot run model.onnx: the engine cannot be read by this TensorRT \(10.3.0\)"
    ):
        target("tensorrt").load(network(batch=1), precision="fp32")


def test_a_machine_without_a_gpu_says_what_else_there_is(
    machine: Machine, network: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("10.3.0")
    assert gpu.find() == gpu.Gpu(name="Stand-in", compute_capability="8.6")
    monkeypatch.setenv("GPUS", "0")
    with pytest.raises(RuntimeMissingError, match="finds no device.*--device ssh://"):
        target("tensorrt").load(network(), precision="fp32")
    monkeypatch.setenv("EDGEPRESS_LIBCUDA", "/no/libcuda.so")
    assert "the driver's library libcuda.so.1 is not found" in str(target("tensorrt").unavailable())


def test_a_gpu_without_the_package_says_how_to_install_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("10.3.0")
    monkeypatch.setattr(sys, "path", [])
    assert "pip install 'edgepress[tensorrt]'" in str(target("tensorrt").unavailable())
