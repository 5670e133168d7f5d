"""TensorRT on a GPU of this machine as a target: what is asked of it before any work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import run

from edgepress.pipeline import boards, recipe
from edgepress.pipeline.plan import Plan, make
from edgepress.targets import gpu, profiles
from edgepress.targets.errors import RecipeError
from edgepress.targets.gpu import Gpu, NoGpu
from edgepress.targets.trt import TensorRT

DOCS = Path(__file__).resolve().parents[2] / "docs" / "devices.md"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The profile that the page on devices shows."""
    (text,) = re.findall(r"```yaml\n(name: my-gpu\n.*?)```", DOCS.read_text(), flags=re.DOTALL)
    path = tmp_path / "my-gpu.yaml"
    path.write_text(text)
    return path


def met(path: Path) -> Plan:
    plan = make(
        recipe.load(
            None,
            origin="here",
            options=[("target", str(path)), ("model", "builtin:digits-student"), ("data", "builtin:digits")],
        )
    )
    found, there = boards.meet_all(plan, note=lambda text: None)
    assert there == ()
    return found


def machine(monkeypatch: pytest.MonkeyPatch, *, capability: str = "8.6", version: str = "10.13.2") -> None:
    monkeypatch.setattr(gpu, "find", lambda: Gpu(name="RTX", compute_capability=capability))
    monkeypatch.setattr(TensorRT, "version", lambda self: version)


def test_without_a_gpu_the_run_ends_before_any_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "find", lambda: NoGpu(why="the driver's library libcuda.so.1 is not found"))
    out = tmp_path / "out"
    code, _, said = run(capsys, "--target", str(own), "--out", str(out))
    assert code == 3
    assert "there is no NVIDIA GPU here (the driver's library libcuda.so.1 is not found)" in " ".join(said.split())
    assert "--device ssh://" in said
    assert not out.exists()


@pytest.mark.parametrize("version", ["10.13.2", "11.4.0.106"])
def test_the_profile_takes_the_version_that_is_installed_and_the_gpu_that_is_there(
    monkeypatch: pytest.MonkeyPatch, own: Path, version: str
) -> None:
    machine(monkeypatch, version=version)
    assert profiles.load(str(own)).runtime_version != version
    found = met(own).profile
    assert (found.runtime_version, found.compute_capability) == (version, "8.6")
    assert (found.measures_with, found.where) == ("tensorrt", "device")


def test_a_gpu_without_int8_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch, own: Path) -> None:
    machine(monkeypatch, capability="5.2")
    with pytest.raises(RecipeError, match=r"RTX \(compute capability 5.2\) has no INT8 units: leave int8 out"):
        met(own)


def test_a_version_that_the_profile_does_not_suit_is_told(monkeypatch: pytest.MonkeyPatch, own: Path) -> None:
    own.write_text(own.read_text().replace("opset: 19", "opset: 17"))
    machine(monkeypatch, version="11.4.0.106")
    with pytest.raises(RecipeError, match="does not fit the TensorRT here, 11.4.0.106: .*opset 19"):
        met(own)
