"""TensorRT's Python package as each generation has it, and CUDA's runtime, with stand-ins for both on a board."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from board_here import Board
from fake_tensorrt import CUDART, GENERATIONS, compiled, fake
from numpy.typing import NDArray

from edgepress.targets import profiles
from edgepress.targets.jobs import Engine
from edgepress.targets.remote import board as scripts
from edgepress.targets.remote import reading, work
from edgepress.targets.remote.boards import BoardFacts
from edgepress.targets.remote.device import Left

pytestmark = pytest.mark.device

Images = NDArray[np.float32]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("cuda"), CUDART)


@pytest.fixture
def api() -> ModuleType:
    """The script's own module."""
    path = Path(next(iter(scripts.__path__))) / "trt_api.py"
    spec = importlib.util.spec_from_file_location("trt_api", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def board(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    monkeypatch.setenv("EDGEPRESS_CUDART", str(library))
    (tmp_path / "board").mkdir()
    found = Board(tmp_path / "board")
    yield found
    found.close()


class OnDisk(Left):
    """The results of a job whose folder is at hand."""

    def __init__(self, folder: Path) -> None:
        super().__init__(tuple(path.name for path in folder.iterdir()), origin="here")
        self.folder = folder

    def read(self, name: str, *, limit_bytes: int = 0) -> bytes | None:
        return (self.folder / name).read_bytes() if name in self.names else None


def carried_out(board: Board, path: Path, images: Images, version: str, **settings: Any) -> tuple[work.Work, str]:
    profile = profiles.load("jetson-nano").model_copy(update={"trtexec": {"rounds": 1, **settings}})
    facts = BoardFacts(python="3.6.9", home="/h", boot_id="b", runtimes={"tensorrt": version})
    engine = Engine(name="a", path=path, runtime="tensorrt", precision="fp32")
    planned = work.plan([engine], profile=profile, facts=facts, inputs=images, seconds=0.1)
    folder = board.send(planned)
    board.ask("start", folder)
    assert board.ended(folder)["state"] == "done"
    return planned, folder


@pytest.mark.parametrize("version", GENERATIONS)
def test_every_generation_answers_all_samples_in_one_process(
    board: Board, network: Callable[..., Path], images: Images, version: str
) -> None:
    (board.folder / "modules/tensorrt.py").write_text(fake(version))
    planned, folder = carried_out(board, network(batch=1), images, version)
    told = board.result(folder, "answers-a.json")
    assert told == {"file": "outputs-a.bin", "shape": [len(images), 2]}
    reader = reading._Reader(planned, OnDisk(Path(folder, "results")), splits={"val": 30, "test": 40}, threads=1)
    found = reader._plain_outputs("a")
    assert found is not None
    sums = images.reshape(len(images), -1).sum(axis=1)
    np.testing.assert_allclose(found["val"], np.stack([sums, -sums], axis=1)[:30], atol=1e-3)
    np.testing.assert_allclose(found["test"], np.stack([sums, -sums], axis=1)[30:], atol=1e-3)
    assert not board.calls("--exportOutput"), "the tool is not asked"


def test_an_engine_that_cannot_be_read_says_so_and_how_to_do_without(
    board: Board, network: Callable[..., Path], images: Images
) -> None:
    (board.folder / "modules/tensorrt.py").write_text(fake("10.3.0", broken=True))
    planned, folder = carried_out(board, network(batch=1), images[:2], "10.3.0")
    assert "the engine cannot be read by this TensorRT (10.3.0)" in board.result(folder, "answers-a.json")["why"]
    reader = reading._Reader(planned, OnDisk(Path(folder, "results")), splits={"test": 2}, threads=1)
    assert "`trtexec: {python: false}`" in str(reader._silence("a")[0])


def test_a_profile_can_ask_for_the_tool_all_the_same(
    board: Board, network: Callable[..., Path], images: Images
) -> None:
    (board.folder / "modules/tensorrt.py").write_text(fake("10.3.0"))
    carried_out(board, network(batch=1), images[:2], "10.3.0", python=False)
    assert len(board.calls("--exportOutput")) == 2


@pytest.mark.parametrize(("letter", "values"), [("e", [0.5, -2.0]), ("i", [3, -4]), ("q", [3, -4]), ("b", [3, -4])])
def test_every_type_of_output_becomes_float32(api: ModuleType, letter: str, values: list[float]) -> None:
    data = api.as_floats(struct.pack(f"<2{letter}", *values), letter)
    np.testing.assert_array_equal(np.frombuffer(data, np.float32), values)


def test_answers_in_half_precision_are_read(board: Board, network: Callable[..., Path], images: Images) -> None:
    (board.folder / "modules/tensorrt.py").write_text(fake("8.2.1", half=True))
    planned, folder = carried_out(board, network(batch=1), images[:3], "8.2.1")
    reader = reading._Reader(planned, OnDisk(Path(folder, "results")), splits={"test": 3}, threads=1)
    found = reader._plain_outputs("a")
    assert found is not None
    np.testing.assert_allclose(found["test"][:, 0], images[:3].reshape(3, -1).sum(axis=1), rtol=2e-3)


def test_a_sample_of_another_size_and_a_library_that_is_not_there_are_told(
    api: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CUDART", "/no/such/libcudart.so")
    with pytest.raises(api.ApiError, match="libcudart.so"):
        api.Cuda()
    with pytest.raises(api.ApiError, match="type FP8"):
        api.Tensor("output", 1, False, "FP8")
