"""Ctrl-C ends a measurement at once, and what was measured until then is kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
from interrupting import interrupting
from measured import NEEDS_ONNXRUNTIME, Images, engine, is_whole, quick

from edgepress.targets import child, phases
from edgepress.targets.measure import Engine

pytestmark = NEEDS_ONNXRUNTIME

Builder = Callable[..., Path]

# The signal comes while the model is loaded or after that: either way it cannot answer any more.
WHILE_IT_NEVER_ANSWERS = """
import os
import signal
import threading
from edgepress.targets import ort

load = ort.OnnxRuntime.load


def load_and_interrupt(self, path, **settings):
    if path.name == "endless.onnx":
        threading.Timer(0.3, os.kill, (os.getppid(), signal.SIGINT)).start()
    return load(self, path, **settings)


ort.OnnxRuntime.load = load_and_interrupt
"""


def test_ctrl_c_while_it_times_keeps_what_was_timed_and_marks_it(
    network: Builder, images: Images, good: Engine, tmp_path: Path
) -> None:
    engines = [good, engine("last", network("last"))]
    environment = interrupting(tmp_path, visits=6)
    found = quick(engines, images, environment=environment, seconds=100.0, memory=True)
    assert found.incomplete == "stopped while the latency was measured"
    latencies = [found.figures[name].latency for name in ("good", "last")]
    for latency in latencies:
        assert latency is not None
        assert latency.stopped == "interrupted"
    assert latencies[0] is not None
    assert latencies[1] is not None
    assert len(latencies[0].samples_ms) == len(latencies[1].samples_ms) >= 3
    assert found.figures["good"].memory_mb is None
    assert found.figures["good"].failed is None


def test_ctrl_c_in_the_middle_of_a_call_does_not_wait_for_it(
    endless: Path, images: Images, good: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LAST_SECONDS", 0.3)
    (tmp_path / "sitecustomize.py").write_text(WHILE_IT_NEVER_ANSWERS)
    with pytest.raises(KeyboardInterrupt):  # nothing was measured, so there is nothing to keep
        quick([good, engine("endless", endless)], images, environment={"PYTHONPATH": str(tmp_path)})


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
