"""Measuring in processes of their own: the figures, and what survives an engine that misbehaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepress.targets import child, energy, phases
from edgepress.targets.errors import RecipeError
from edgepress.targets.measure import Engine, Figures, Measurement, measure
from edgepress.targets.runtimes import target
from edgepress.targets.statistics import ratio

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(target("onnxruntime").unavailable()), reason=str(target("onnxruntime").unavailable())),
]

Builder = Callable[..., Path]
Images = NDArray[np.float32]
T = TypeVar("T")
# A runtime that crashes on one file: what is found on PYTHONPATH under this name is run as Python starts.
CRASHING = """
import os
from edgepress.targets import duties, ort

duties.PRECISION_GOAL = 0.0  # never precise enough: only the signal ends the timing
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


def engine(name: str, path: Path, **settings: str) -> Engine:
    return Engine(**{"name": name, "path": path, "runtime": "onnxruntime", "precision": "fp32", **settings})


def quick(engines: list[Engine], images: Images, **settings: object) -> Measurement:
    """The pinned run alone, short."""
    defaults: dict[str, object] = {
        "seconds": 0.05,
        "all_cores": False,
        "memory": False,
        "timeout_seconds": 60.0,
        "energy": False,
    }
    return measure(engines, inputs={"test": images}, **{**defaults, **settings})  # type: ignore[arg-type]


@pytest.fixture
def good(network: Builder) -> Engine:
    return engine("good", network("good"))


def is_whole(figures: Figures) -> bool:
    return figures.failed is None and figures.latency is not None and figures.outputs is not None


def test_the_answers_are_those_of_the_session_for_every_split(network: Builder, images: Images) -> None:
    good = engine("good", network("good"))
    found = measure(
        [good],
        inputs={"val": images[:3], "test": images},
        seconds=0.05,
        all_cores=False,
        memory=False,
        timeout_seconds=60,
    ).figures["good"]
    assert found.outputs is not None
    (expected,) = target("onnxruntime").load(good.path, precision="fp32")(images)
    np.testing.assert_allclose(found.outputs["test"], expected, rtol=1e-5)
    np.testing.assert_allclose(found.outputs["val"], expected[:3], rtol=1e-5)
    assert found.memory_mb is None
    assert found.all_cores is None


def test_a_model_with_a_fixed_batch_answers_one_by_one(network: Builder, images: Images) -> None:
    found = quick([engine("fixed", network("fixed", batch=1))], images).figures["fixed"]
    assert found.outputs is not None
    assert found.outputs["test"].shape == (70, 10)


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
    found = quick([good, engine("endless", endless)], images, timeout_seconds=2.0).figures
    assert is_whole(found["good"])
    assert "no answer for 2 s" in str(found["endless"].failed)


@pytest.mark.slow
def test_every_figure_is_there_and_fits_the_others(network: Builder, images: Images) -> None:
    engines = [
        engine("fp32", network("fp32", channels=32)),
        engine("int8", network("int8", channels=32, activations=np.uint8), precision="int8"),
    ]
    told: list[float] = []
    found = measure(
        engines, inputs={"test": images}, seconds=1, timeout_seconds=60, progress=lambda text, share: told.append(share)
    )
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] <= 1
    assert found.versions == {"onnxruntime": target("onnxruntime").version()}
    for name, figures in found.figures.items():
        assert figures.failed is None
        assert figures.latency is not None
        assert figures.latency.threads == 1
        assert figures.memory_mb is not None
        assert set(figures.memory_mb) == {"start", "runtime", "load", "first", "steady", "peak"}
        assert figures.memory_mb["start"] < figures.memory_mb["runtime"] < figures.memory_mb["load"]
        assert figures.memory_mb["peak"] >= max(figures.memory_mb.values()) - 0.01
        assert figures.cold_start_ms is not None
        assert set(figures.cold_start_ms) == {"runtime_ms", "load_ms", "first_ms"}
        assert figures.cold_start_ms["load_ms"] > figures.latency.median_ms
        assert (figures.int8 is not None) == (name == "int8")
    if found.machine["usable_cores"] > 1:
        assert found.figures["fp32"].all_cores is not None
        assert found.figures["fp32"].all_cores.threads == found.machine["usable_cores"]
    if sys.platform == "linux":
        assert len(found.machine["pinned_cpus"]) == 1


@pytest.mark.slow
def test_a_model_against_its_copy_shows_no_difference_and_a_larger_one_is_slower(
    network: Builder, images: Images
) -> None:
    engines = [
        engine("small", network("small", channels=8)),
        engine("copy", network("copy", channels=8)),
        engine("large", network("large", channels=512)),
    ]
    found = quick(engines, images, seconds=3.0).figures
    small, copy, large = (found[one.name].latency for one in engines)
    assert small is not None
    assert copy is not None
    assert large is not None
    same = ratio(small, copy)
    assert 0.9 < same.low <= same.high < 1.1
    assert ratio(large, small).low > 1.5


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
        child = _wait_for(lambda: _children(parent.pid), seconds=20)[0]
        time.sleep(1)  # until it is deep in the model
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert _wait_for(lambda: not _is_running(child), seconds=10)


def test_a_comparison_of_nothing_is_refused(images: Images, good: Engine) -> None:
    with pytest.raises(RecipeError, match="one at least"):
        quick([], images)
    with pytest.raises(RecipeError, match="names of their own"):
        quick([good, good], images)
    with pytest.raises(RecipeError, match="one image at least"):
        quick([good], images[:0])
    with pytest.raises(RecipeError, match="no runtime 'onnxruntim'"):
        quick([engine("a", good.path, runtime="onnxruntim")], images)
    with pytest.raises(RecipeError, match="threads is 0"):
        quick([Engine(name="a", path=good.path, runtime="onnxruntime", precision="fp32", threads=0)], images)


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


INTERRUPTING = """
import os
import signal
import threading
from edgepress.targets import duties, ort

duties.PRECISION_GOAL = 0.0  # never precise enough: only the signal ends the timing
load = ort.OnnxRuntime.load
seconds = float(os.environ["INTERRUPT_AFTER"])


def load_and_interrupt(self, path, **settings):
    if os.path.basename(str(path)) == "last.onnx":  # whoever started us gets what Ctrl-C would send to it alone
        threading.Timer(seconds, os.kill, (os.getppid(), signal.SIGINT)).start()
    return load(self, path, **settings)


ort.OnnxRuntime.load = load_and_interrupt
"""


def interrupted(
    engines: list[Engine], images: Images, folder: Path, *, after: float, **settings: object
) -> Measurement:
    (folder / "sitecustomize.py").write_text(INTERRUPTING)
    environment = {"PYTHONPATH": str(folder), "INTERRUPT_AFTER": str(after)}
    return quick(engines, images, environment=environment, **settings)


def test_ctrl_c_while_it_times_keeps_what_was_timed_and_marks_it(
    network: Builder, images: Images, tmp_path: Path
) -> None:
    # large enough that the twenty rounds it takes at least are not over before the signal comes
    good, last = engine("good", network("good", channels=1024)), engine("last", network("last", channels=1024))
    began = time.monotonic()
    found = interrupted([good, last], images, tmp_path, after=0.3, seconds=60.0, memory=True)
    assert time.monotonic() - began < 30
    assert found.incomplete == "stopped while the latency was measured"
    latencies = [found.figures[name].latency for name in ("good", "last")]
    for latency in latencies:
        assert latency is not None
        assert latency.stopped == "interrupted"
    assert latencies[0] is not None
    assert latencies[1] is not None
    assert len(latencies[0].samples_ms) == len(latencies[1].samples_ms) > 0
    assert found.figures["good"].memory_mb is None
    assert found.figures["good"].failed is None


def test_ctrl_c_in_the_middle_of_a_call_does_not_wait_for_it(
    endless: Path, images: Images, good: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LAST_SECONDS", 0.3)
    endless = endless.rename(tmp_path / "last.onnx")
    with pytest.raises(KeyboardInterrupt):  # nothing was measured, so there is nothing to keep
        interrupted([good, engine("last", endless)], images, tmp_path, after=0.3)


def test_ctrl_c_between_two_measurements_keeps_the_first(
    images: Images, good: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(run: object, engines: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(phases, "memory", interrupt)
    found = quick([good], images, memory=True)
    assert found.incomplete == "stopped between two measurements"
    assert is_whole(found.figures["good"])


def test_a_complete_measurement_is_not_marked(images: Images, good: Engine) -> None:
    assert quick([good], images).incomplete is None


def test_batches_are_timed_where_the_batch_is_open_and_missed_elsewhere(
    network: Builder, images: Images, good: Engine
) -> None:
    found = quick([good, engine("fixed", network("fixed", batch=1))], images, batch=4)
    batched, single = found.figures["good"].batched, found.figures["good"].latency
    assert batched is not None
    assert single is not None
    assert batched.median_ms > single.median_ms
    assert found.figures["fixed"].batched is None
    assert is_whole(found.figures["fixed"])
    missed = [str(caveat) for caveat in found.caveats if caveat.kind == "missing"]
    assert any(text.startswith("fixed was not timed with batches of 4: the model takes 1x3x8x8") for text in missed)


def test_a_sustained_run_has_curves_and_is_kept_apart_from_the_comparison(images: Images, good: Engine) -> None:
    found = quick([good], images, sustained_seconds=0.5)
    assert found.sustained is not None
    assert found.sustained["seconds"] >= 0.4
    assert found.sustained["ranking_at_end"] == ["good"]
    assert is_whole(found.figures["good"])


def test_energy_is_measured_or_the_reason_is_told(images: Images, good: Engine) -> None:
    found = quick([good], images, energy=True)
    meter, why = energy.find()
    assert (found.figures["good"].energy is None) == ("energy" in found.not_measured)
    if meter is None:
        assert found.not_measured["energy"] == why


def test_the_work_of_others_is_watched_while_it_measures(images: Images, good: Engine) -> None:
    during = quick([good], images).machine["during"]
    assert during["seconds"] > 0
    if sys.platform == "linux":
        assert during["others_cpus"] >= 0
