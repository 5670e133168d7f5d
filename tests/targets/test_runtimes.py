"""What every runtime promises, and what each of them really does with INT8."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepress.targets import installed, ov
from edgepress.targets.errors import RecipeError, RuntimeMissingError, StageError
from edgepress.targets.runtimes import TARGETS, Target, target
from edgepress.targets.sessions import check_input

pytestmark = pytest.mark.device

Builder = Callable[..., Path]
Images = NDArray[np.float32]


@pytest.fixture(params=TARGETS.values(), ids=lambda runtime: runtime.name)
def runtime(request: pytest.FixtureRequest) -> Target:
    """Every runtime that works here; the others are skipped with the reason that they give themselves."""
    found: Target = request.param
    reason = found.unavailable()
    if reason:
        pytest.skip(reason)
    return found


def reference(model: Path, images: Images) -> Images:
    """The answers of the onnx package's own evaluator, which is slow and optimises nothing."""
    from onnx.reference import ReferenceEvaluator

    answer: Images = ReferenceEvaluator(str(model)).run(None, {"input": images})[0]
    return answer


def test_a_session_tells_its_input_from_the_model(runtime: Target, network: Builder) -> None:
    session = runtime.load(network(batch="n"), precision="fp32")
    assert (session.input_name, session.input_shape) == ("input", (None, 3, 8, 8))
    fixed = runtime.load(network(batch=1), precision="fp32")
    assert fixed.input_shape == (1, 3, 8, 8)


def test_a_session_answers_as_the_model_means(runtime: Target, network: Builder, images: Images) -> None:
    session = runtime.load(network(), precision="fp32", threads=1)
    (answer,) = session(images)
    np.testing.assert_allclose(answer, reference(network(), images), atol=1e-5)


def test_a_session_sees_what_its_array_holds_now(runtime: Target, network: Builder, images: Images) -> None:
    session = runtime.load(network(), precision="fp32")
    batch = images[:1].copy()
    session(batch)
    batch[:] = images[1:2]
    np.testing.assert_allclose(session(batch)[0], reference(network(), images[1:2]), atol=1e-5)


def test_a_session_takes_an_array_that_cannot_be_shared(runtime: Target, network: Builder, images: Images) -> None:
    session = runtime.load(network(), precision="fp32")
    fixed, strided = images[:1].copy(), images[::2]
    fixed.setflags(write=False)
    for batch in (fixed, strided, fixed):
        np.testing.assert_allclose(session(batch)[0], reference(network(), batch), atol=1e-5)


def test_answers_are_not_overwritten_by_the_next_call(runtime: Target, network: Builder, images: Images) -> None:
    session = runtime.load(network(), precision="fp32")
    (first,) = session(images[:1])
    kept = first.copy()
    session(images[1:2])
    np.testing.assert_array_equal(first, kept)


def test_a_call_reads_the_batch_that_it_is_given(runtime: Target, network: Builder, images: Images) -> None:
    session = runtime.load(network(), precision="fp32")
    batch = images[:1].copy()
    session(batch)
    batch[:] = images[1:2]
    np.testing.assert_allclose(session(batch)[0], reference(network(), images[1:2]), atol=1e-5)


def test_a_session_can_be_closed(runtime: Target, network: Builder, images: Images) -> None:
    session = runtime.load(network(), precision="fp32")
    session.close()
    with pytest.raises((TypeError, AttributeError)):
        session(images[:1])


def test_a_quantised_model_runs_its_convolution_in_int8(runtime: Target, network: Builder, images: Images) -> None:
    model = network("int8", activations=np.uint8, opset=19)  # the oldest that the evaluator can quantise in
    found = runtime.int8_layers(model, precision="int8")
    assert (found["int8_layers"], found["weighted_layers"], len(found["float_layers"])) == (1, 2, 1)
    assert sum(found["kinds"].values()) == 2
    answer = runtime.load(model, precision="int8")(images)[0]
    np.testing.assert_allclose(answer, reference(model, images), atol=0.1)


def test_a_float_model_runs_nothing_in_int8(runtime: Target, network: Builder) -> None:
    found = runtime.int8_layers(network(), precision="fp32")
    assert (found["int8_layers"], found["weighted_layers"]) == (0, 2)


def test_a_missing_file_is_named(runtime: Target, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no model at .*gone\.onnx"):
        runtime.load(tmp_path / "gone.onnx", precision="fp32")


def test_another_kind_of_file_is_refused(runtime: Target, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"reads .*\.onnx.* was given model\.pt"):
        runtime.load(tmp_path / "model.pt", precision="fp32")


def test_a_broken_file_is_told_from_a_missing_one(runtime: Target, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(StageError, match=r"cannot (load|read) broken\.onnx"):
        runtime.load(tmp_path / "broken.onnx", precision="fp32")


def test_a_precision_that_it_does_not_compute_in_is_refused(runtime: Target, network: Builder) -> None:
    with pytest.raises((RecipeError, StageError), match="int4"):
        runtime.load(network(), precision="int4")


def test_a_batch_of_another_size_is_refused_in_plain_words(runtime: Target, network: Builder, images: Images) -> None:
    session = runtime.load(network(), precision="fp32")
    check_input(session, images)
    with pytest.raises(StageError, match=r"takes \?x3x8x8 at its input 'input' and was given 70x3x4x8"):
        check_input(session, images[:, :, ::2])


def test_the_version_is_the_installed_one(runtime: Target) -> None:
    module = installed.load(runtime.name, package=runtime.name)
    assert module.__version__.startswith(runtime.version())


def test_openvino_reads_its_own_format_with_the_same_answers(network: Builder, images: Images) -> None:
    runtime = target("openvino")
    if runtime.unavailable():
        pytest.skip(str(runtime.unavailable()))
    onnx = network("int8", activations=np.int8)
    ov.save_ir(onnx, onnx.with_suffix(".xml"))
    assert onnx.with_suffix(".bin").exists()
    answers = [runtime.load(path, precision="int8")(images)[0] for path in (onnx, onnx.with_suffix(".xml"))]
    np.testing.assert_allclose(*answers, atol=1e-6)


def test_openvino_refuses_bf16_on_a_cpu_without_it(network: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    if target("openvino").unavailable():
        pytest.skip(str(target("openvino").unavailable()))
    monkeypatch.setitem(ov.NEEDED, "bf16", "AN_INSTRUCTION_OF_TOMORROW")
    with pytest.raises(StageError, match="this CPU has no bf16"):
        target("openvino").load(network(), precision="bf16")


def test_onnx_runtime_refuses_precisions_that_it_would_ignore(network: Builder) -> None:
    with pytest.raises(StageError, match="computes bf16 as fp32 on a CPU"):
        target("onnxruntime").load(network(), precision="bf16")


def test_tensorrt_says_that_its_engines_are_built_on_the_board(network: Builder) -> None:
    reason = target("tensorrt").unavailable()
    if reason is None or "no NVIDIA GPU" not in reason:
        pytest.skip("there is a GPU here")
    assert "built on the board" in reason
    with pytest.raises(RuntimeMissingError, match=r"model\.onnx cannot be loaded here"):
        target("tensorrt").load(network(), precision="fp32")
    with pytest.raises(RuntimeMissingError, match=r"model\.onnx cannot be loaded here"):
        target("tensorrt").int8_layers(network(), precision="int8")


def test_a_misspelt_runtime_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="no runtime 'openvin'; did you mean 'openvino'"):
        target("openvin")


def test_a_runtime_that_is_not_installed_comes_with_its_command() -> None:
    assert installed.problem("no_such_runtime", package="no-such") == "no-such is not installed: pip install no-such"
    assert installed.version("no-such-runtime") == "not installed"
    with pytest.raises(RuntimeMissingError, match="pip install no-such"):
        installed.load("no_such_runtime", package="no-such")


def test_a_runtime_that_is_broken_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_runtime.py").write_text("raise ImportError('libfast.so.3: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    reason = installed.problem("broken_runtime", package="broken-runtime")
    assert reason is not None
    assert "installed but broken: ImportError: libfast.so.3" in reason
    assert "broken_runtime" not in sys.modules


def test_openvino_has_one_core_so_that_signals_stay_safe() -> None:
    """Two cores whose lives overlap leave a signal stack behind that is gone (OpenVINO 2026.4.1, CPUs with AMX)."""
    pytest.importorskip("openvino")
    from edgepress.targets import ov

    assert ov._core() is ov._core()
