"""Engines that cannot answer, crash or hang cost the others nothing, and nothing outlives the process that asked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from measured import NEEDS_ONNXRUNTIME, Images, engine, is_whole, quick

from edgepress.targets.measure import Engine

pytestmark = NEEDS_ONNXRUNTIME

Builder = Callable[..., Path]
T = TypeVar("T")
SILENCE = 8.0  # seconds: longer than a busy machine takes to start Python and a runtime
# A runtime that crashes on one file: what is found on PYTHONPATH under this name is run as Python starts.
CRASHING = """
import os
from edgepress.targets import ort

load = ort.OnnxRuntime.load


def crash_on_purpose(self, path, **settings):
    if path.name == "crashing.onnx":
        os.abort()
    return load(self, path, **settings)


ort.OnnxRuntime.load = crash_on_purpose
"""

CRASHING_LATER = """
import os
from edgepress.targets import memory, ort

load = ort.OnnxRuntime.load


def crash_with_threads(self, path, *, precision, threads=1):
    if threads > 1:
        os.abort()
    return load(self, path, precision=precision, threads=threads)


def refuse():
    raise OSError("no /proc")


ort.OnnxRuntime.load = crash_with_threads
memory.now_mb = refuse
"""


def test_engines_that_cannot_answer_do_not_cost_the_others_their_figures(
    network: Builder, images: Images, good: Engine, tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    bad = {
        "nan": (engine("nan", network("nan", broken=True)), "NaN or infinity"),
        "shape": (engine("shape", network("shape", classes=7)), r"answers in the shape (1, 7), the engines before"),
        "broken": (engine("broken", tmp_path / "broken.onnx"), "cannot load broken.onnx"),
        "gone": (engine("gone", tmp_path / "gone.onnx"), "no model at"),
        "batch": (engine("batch", network("batch", batch=8)), "takes 8x3x8x8"),
        "board": (engine("board", good.path, runtime="tensorrt"), "built on the board"),
        "bf16": (engine("bf16", good.path, precision="bf16"), "computes bf16 as fp32"),
    }
    found = quick([good, *(one for one, _ in bad.values())], images).figures
    assert is_whole(found["good"])
    for name, (_, words) in bad.items():
        assert words in str(found[name].failed)
        assert found[name].latency is None


def test_an_engine_that_crashes_its_process_is_left_out(
    network: Builder, images: Images, good: Engine, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    crashing = engine("crashing", network("crashing"))
    told: list[float] = []
    found = quick(
        [good, crashing],
        images,
        environment={"PYTHONPATH": str(tmp_path)},
        progress=lambda text, share: told.append(share),
    ).figures
    assert told == sorted(told), "progress went back"
    assert is_whole(found["good"])
    assert found["crashing"].failed is not None
    assert "crashed (SIGABRT)" in found["crashing"].failed


def test_a_process_that_cannot_start_fails_every_engine_with_its_last_words(
    network: Builder, images: Images, good: Engine, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'no room left\\n')\nos._exit(7)")
    other = engine("other", network("other"))
    found = quick([good, other], images, environment={"PYTHONPATH": str(tmp_path)}).figures
    assert {figures.failed for figures in found.values()} == {
        "the measuring process ended with exit code 7: no room left"
    }


def test_a_crash_with_all_cores_or_in_the_memory_process_costs_that_figure_alone(
    images: Images, good: Engine, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CRASHING_LATER)
    found = quick([good], images, all_cores=True, memory=True, environment={"PYTHONPATH": str(tmp_path)})
    assert is_whole(found.figures["good"])
    assert found.figures["good"].memory_mb is None
    told = [str(caveat) for caveat in found.caveats]
    assert (
        "The memory of good was not measured: the measuring process ended with exit code 1: OSError: no /proc." in told
    )
    if found.machine["usable_cores"] > 1:
        assert found.figures["good"].all_cores is None
        assert any(sentence.startswith("good was not timed on all cores: the runtime crashed") for sentence in told)


@pytest.mark.slow
def test_an_engine_that_never_answers_is_left_out(endless: Path, images: Images, good: Engine) -> None:
    found = quick([good, engine("endless", endless)], images, timeout_seconds=SILENCE).figures
    assert is_whole(found["good"])
    assert f"no answer for {SILENCE:g} s" in str(found["endless"].failed)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killing_the_parent_ends_the_measuring_process(endless: Path) -> None:
    script = f"""
import numpy as np
from pathlib import Path
from edgepress.targets.measure import Engine, measure
engine = Engine(name="endless", path=Path({str(endless)!r}), runtime="onnxruntime", precision="fp32")
measure([engine], inputs={{"test": np.zeros((1, 3, 8, 8), np.float32)}}, timeout_seconds=300)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.DEVNULL)
    try:
        child = _wait_for(lambda: _children(parent.pid), seconds=100)[0]
        time.sleep(1)  # until it is deep in the model
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert _wait_for(lambda: not _is_running(child), seconds=100)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # a zombie has ended: whoever adopted it has not asked yet


def _wait_for(answer: Callable[[], T], *, seconds: float) -> T:
    end = time.monotonic() + seconds
    while not (found := answer()) and time.monotonic() < end:
        time.sleep(0.05)
    return found
