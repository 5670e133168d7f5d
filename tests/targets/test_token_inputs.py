"""Networks that take numbers of tokens are loaded, fed and measured as others are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepress.targets import model_input, profiles
from edgepress.targets.bundle import write_bundle
from edgepress.targets.errors import RecipeError, StageError
from edgepress.targets.measure import Engine, measure
from edgepress.targets.runtimes import TARGETS
from edgepress.targets.sessions import check_input, input_type

VOCABULARY, LENGTH, CLASSES = 11, 6, 3
RUNTIMES = ("onnxruntime", "openvino")
Builder = Callable[..., Path]


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """Embeddings, their mean, and a matrix."""
    rng = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(rng.normal(size=(VOCABULARY, 8)).astype(np.float32), "words"),
        numpy_helper.from_array(rng.normal(size=(8, CLASSES)).astype(np.float32), "matrix"),
    ]
    nodes = [
        helper.make_node("Gather", ["words", "input"], ["embedded"], name="embed"),
        helper.make_node("ReduceMean", ["embedded"], ["mean"], name="mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["output"], name="head"),
    ]
    graph = helper.make_graph(
        nodes, "reader", [helper.make_tensor_value_info("input", TensorProto.INT64, [1, LENGTH])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, CLASSES])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(tmp_path / "reader.onnx"))
    return tmp_path / "reader.onnx"


def texts(count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(VOCABULARY, size=(count, LENGTH))


def wanted(path: Path, rows: np.ndarray) -> np.ndarray:
    words, matrix = (numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer)
    return np.asarray(words[rows].mean(axis=1) @ matrix)


@pytest.mark.device
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_session_takes_whole_numbers_and_refuses_others(runtime: str, reader: Path) -> None:
    target = TARGETS[runtime]
    if target.unavailable():
        pytest.skip(str(target.unavailable()))
    session = target.load(reader, precision="fp32")
    rows = texts(1)
    assert (session.input_type, session.input_shape) == ("int64", (1, LENGTH))
    check_input(session, rows)
    np.testing.assert_allclose(session(rows)[0], wanted(reader, rows), rtol=1e-4)
    with pytest.raises(StageError, match="takes int64 at its input 'input' and was given float32: numbers of tokens"):
        check_input(session, rows.astype(np.float32))
    session.close()


@pytest.mark.device
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tokens_are_measured_with_the_tokens_that_were_given(runtime: str, reader: Path) -> None:
    if TARGETS[runtime].unavailable():
        pytest.skip(str(TARGETS[runtime].unavailable()))
    rows = texts().astype(np.int32)
    found = measure(
        [Engine(name="reader", path=reader, runtime=runtime, precision="fp32")],
        inputs={"test": rows}, seconds=0.05, all_cores=False, memory=False, energy=False,
    )  # fmt: skip
    figures = found.figures["reader"]
    assert figures.failed is None
    assert figures.latency is not None
    assert figures.outputs is not None
    np.testing.assert_allclose(figures.outputs["test"], wanted(reader, rows), rtol=1e-4)


def test_whole_numbers_are_tokens_and_all_others_float() -> None:
    assert [input_type(np.zeros(1, kind)) for kind in (np.int64, np.int32, np.uint8)] == ["int64"] * 3
    assert [input_type(np.zeros(1, kind)) for kind in (np.float64, np.float32)] == ["float32"] * 2


def test_random_tokens_stay_within_the_embedding(reader: Path) -> None:
    found = model_input.read(reader)
    assert (found.shape, found.vocabulary, found.words()) == ((1, LENGTH), VOCABULARY, f"1x{LENGTH} int64")
    rows = found.random()
    assert (rows.dtype, rows.shape[1:]) == (np.int64, (LENGTH,))
    assert 0 < rows.min() <= rows.max() < VOCABULARY
    assert np.array_equal(rows, found.random())


def test_a_file_that_tells_its_vocabulary_is_believed(reader: Path) -> None:
    model = onnx.load(str(reader))
    onnx.helper.set_model_props(model, {"preprocessing": '{"length": 6, "vocabulary": 4, "pad": 0}'})
    onnx.save(model, str(reader))
    assert model_input.read(reader).vocabulary == 4


def test_images_are_still_random_numbers(network: Builder) -> None:
    found = model_input.read(network("net"))
    assert (found.vocabulary, found.random().dtype) == (None, np.float32)


def test_a_type_that_no_model_of_edgepress_takes_is_refused(reader: Path) -> None:
    model = onnx.load(str(reader))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    onnx.save(model, str(reader))
    with pytest.raises(RecipeError, match="neither float32 nor int64"):
        model_input.read(reader)


@pytest.mark.parametrize(("profile", "kind"), [("jetson-nano", np.int32), ("jetson-orin-nano", np.int64)])
def test_a_bundle_holds_tokens_as_the_board_s_tensorrt_reads_them(
    profile: str, kind: type[np.integer], reader: Path, tmp_path: Path
) -> None:
    rows = texts()
    engine = Engine(name="baseline", path=reader, runtime="tensorrt", precision="fp32")
    write_bundle(tmp_path / "bundle", [engine], profile=profiles.load(profile), samples=rows)
    assert np.array_equal(np.frombuffer((tmp_path / "bundle/inputs/sample.bin").read_bytes(), kind), rows[0])
