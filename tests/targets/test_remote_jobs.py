"""What the script on a board makes of a job that fails, is interrupted, stopped, or started twice."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_here import Board
from numpy.typing import NDArray

from edgepress.targets import profiles
from edgepress.targets.jobs import Engine
from edgepress.targets.remote import work
from edgepress.targets.remote.boards import BoardFacts

pytestmark = pytest.mark.device

Builder = Callable[..., Path]
Images = NDArray[np.float32]
BUILD, TIME, LAYERS = "--saveEngine", "--exportTimes", "--exportProfile"
FACTS = BoardFacts(python="3.6.9", home="/h", boot_id="b", tensorrt_code="8201")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    (tmp_path / "board").mkdir()
    found = Board(tmp_path / "board")
    yield found
    found.close()


@pytest.fixture
def planned(network: Builder, images: Images) -> Callable[..., work.Work]:
    """A job of two engines, `a` and `b`, with one sample and three rounds."""

    def plan(*, target: str = "jetson-nano", **options: Any) -> work.Work:
        profile = profiles.load(target)
        engines = [
            Engine(
                name=name, path=network(name, batch=1, channels=4 + number), runtime=profile.runtime, precision="fp32"
            )
            for number, name in enumerate("ab")
        ]
        given = {"profile": profile, "facts": FACTS, "inputs": images[:1], "seconds": 0.1, "rounds": 3, **options}
        return work.plan(engines, **given)

    return plan


def begin(board: Board, folder: str) -> None:
    board.forget_calls()
    board.ask("start", folder)


def stopped_at_the_layers(board: Board, folder: str, *, fails: list[str]) -> None:
    """The job fails late, with everything else behind it."""
    board.trouble(fails=fails, hangs=[LAYERS])
    begin(board, folder)
    board.until(lambda: board.calls(LAYERS))
    assert board.ask("stop", folder)["state"] == "failed"
    board.trouble()


def test_a_job_that_failed_does_its_work_again(board: Board, planned: Callable[..., work.Work]) -> None:
    folder = board.send(planned())
    board.trouble(fails=[BUILD])
    begin(board, folder)
    found = board.ended(folder)
    assert (found["state"], found["text"]) == ("failed", "no engine could be built")
    board.trouble()
    begin(board, folder)
    assert board.ended(folder)["state"] == "done"
    assert len(board.calls(BUILD)) == 2
    assert all(board.result(folder, f"build-{name}.json")["ok"] for name in "ab")


def test_a_second_try_repeats_the_round_that_failed_and_no_other(
    board: Board, planned: Callable[..., work.Work]
) -> None:
    folder = board.send(planned())
    stopped_at_the_layers(board, folder, fails=["times-a-1"])
    before = board.result(folder, "rounds.json")["rounds"]
    assert [bool(one["a"]["why"]) for one in before] == [False, True, False]
    begin(board, folder)
    assert board.ended(folder)["state"] == "done"
    timed = {
        name
        for call in board.calls(TIME)
        for name in ("a-0", "b-0", "a-1", "b-1", "a-2", "b-2")
        if f"times-{name}" in call
    }
    assert timed == {"a-1", "b-1"}
    assert board.calls(BUILD) == board.calls("--exportOutput") == []
    after = board.result(folder, "rounds.json")["rounds"]
    assert (after[0], after[2]) == (before[0], before[2])
    assert not any(entry["why"] for one in after for entry in one.values())


def test_an_engine_that_is_built_at_the_second_try_is_timed_in_turn_with_the_others(
    board: Board, planned: Callable[..., work.Work]
) -> None:
    job = planned()
    folder = board.send(job)
    stopped_at_the_layers(board, folder, fails=["models/b.onnx"])
    assert all(set(one) == {"a"} for one in board.result(folder, "rounds.json")["rounds"])
    begin(board, folder)
    assert board.ended(folder)["state"] == "done"
    assert [("models/b.onnx" in call) for call in board.calls(BUILD)] == [True]
    assert all(set(one) == {"a", "b"} for one in board.result(folder, "rounds.json")["rounds"])


def test_an_interrupted_job_keeps_everything_even_what_failed(board: Board, planned: Callable[..., work.Work]) -> None:
    folder = board.send(planned())
    board.trouble(fails=["models/b.onnx", "times-a-1"], hangs=[LAYERS])
    begin(board, folder)
    board.until(lambda: board.calls(LAYERS))
    board.kill(board.ask("status", folder))
    assert board.ended(folder)["state"] == "profiling"
    board.trouble()
    begin(board, folder)
    assert board.ended(folder)["state"] == "done"
    assert board.calls(BUILD) == board.calls(TIME) == board.calls("--exportOutput") == []
    assert not board.result(folder, "build-b.json")["ok"]


FULL = """
import system, os
real, name = system.write, sys.argv[2]
def write(path, data):
    if path.endswith(name):
        raise OSError(28, os.strerror(28), path)
    real(path, data)
system.write = write
for part in ("engines", "timing"):
    os.makedirs(os.path.join(system.home(), part), exist_ok=True)
"""


def test_a_disk_that_is_full_there_ends_the_job_and_is_told(board: Board, planned: Callable[..., work.Work]) -> None:
    folder = board.send(planned())
    begun = board.inside(
        FULL + "jobs.work(sys.argv[1]); print(json.dumps(jobs.status(sys.argv[1])))", folder, "rounds.json"
    )
    assert begun["state"] == "failed"
    assert "No space left on device" in begun["text"]
    assert "rounds.json): the disk there is full, make room" in begun["text"]
    begin(board, folder)
    assert board.ended(folder)["state"] == "done", "with room again it goes on"
    assert not board.calls(BUILD)


def test_a_disk_that_is_full_when_files_arrive_is_told_in_words(
    board: Board, planned: Callable[..., work.Work]
) -> None:
    job = planned()
    code = (
        FULL
        + """
import zipimport
sys.argv[1:] = ["offer", sys.argv[1]]
exec(zipimport.zipimporter(sys.path[0]).get_code("__main__"), {"__name__": "__main__"})
"""
    )
    folder, manifest = str(board.home / "jobs" / job.key), json.dumps(job.manifest).encode()
    found = board.inside(code, folder, "manifest.json", stdin=manifest)
    assert "the disk there is full, make room" in found["problem"]


def test_a_step_that_takes_too_long_is_ended_and_told(
    board: Board, planned: Callable[..., work.Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "BUILD_SECONDS", 1.0)
    folder = board.send(planned())
    board.trouble(hangs=["models/b.onnx"])
    begin(board, folder)
    assert board.ended(folder)["state"] == "done"
    assert board.result(folder, "build-b.json")["why"] == "it took longer than 1 s"
    assert board.result(folder, "build-a.json")["ok"]


def test_a_board_that_was_restarted_meanwhile_goes_on_where_it_was(
    board: Board, planned: Callable[..., work.Work]
) -> None:
    folder = board.send(planned())
    stopped_at_the_layers(board, folder, fails=[])
    said = json.loads(Path(folder, "status.json").read_text())
    Path(folder, "status.json").write_text(json.dumps({**said, "state": "profiling", "boot_id": "the one before"}))
    found = board.ask("status", folder)
    assert (found["alive"], found["rebooted"]) == (False, True)
    begin(board, folder)
    assert board.ended(folder)["state"] == "done"
    assert board.calls(BUILD) == board.calls(TIME) == []


def test_the_tool_is_found_where_jetpack_puts_it(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import probe; print(json.dumps(probe.trtexec()))"
    monkeypatch.setenv("EDGEPRESS_SYSROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (board.folder / "trtexec").chmod(0o644)
    assert board.inside(code) is None, "what is named and cannot be run is not taken"
    for place in ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec"):
        there = tmp_path / "root" / place.lstrip("/")
        there.parent.mkdir(parents=True)
        there.write_text("#!/bin/sh")
        there.chmod(0o755)
        assert board.inside("import os; os.environ.pop('EDGEPRESS_TRTEXEC'); " + code) == place
        there.unlink()


@pytest.mark.slow
def test_a_runtime_that_is_mended_times_all_engines_in_turn(board: Board, planned: Callable[..., work.Work]) -> None:
    folder = board.send(planned(target="onnxruntime-cpu"))
    board.trouble(fails=["models/"])
    begin(board, folder)
    found = board.ended(folder)
    assert found["state"] == "failed"
    assert "broken: " in found["text"]
    board.trouble(fails=["models/b.onnx"], hangs=['"answers"'])
    begin(board, folder)
    board.until(lambda: board.calls('"answers"'))
    assert board.ask("stop", folder)["text"] == "it was stopped"
    assert set(board.result(folder, "timing-all.json")["samples_ms"]) == {"a"}
    board.trouble()
    begin(board, folder)
    assert board.ended(folder)["state"] == "done"
    assert [("models/b.onnx" in call) for call in board.calls('"memory"')] == [True]
    assert set(board.result(folder, "timing-all.json")["samples_ms"]) == {"a", "b"}


def test_who_starts_a_job_overwrites_nothing_that_its_worker_said(
    board: Board, planned: Callable[..., work.Work]
) -> None:
    folder = board.send(planned())
    code = """
class Waiting(subprocess.Popen):
    def __init__(self, words, **options):
        super().__init__(words, **options)
        if "work" in words:
            self.wait()  # the worker is as fast as it can be: it is done before `start` goes on
subprocess.Popen = Waiting
print(json.dumps(jobs.start(sys.argv[1])))
"""
    assert board.inside(code, folder)["state"] == "done"


def test_a_job_is_alive_before_its_worker_says_a_word_and_no_longer_than_it(
    board: Board, planned: Callable[..., work.Work]
) -> None:
    folder = board.send(planned())
    code = """
real, started = subprocess.Popen, []
def silent(words, **options):
    started.append(real(["sleep", "60"], **options))
subprocess.Popen = silent
found = [jobs.start(sys.argv[1]), jobs.start(sys.argv[1]), jobs.status(sys.argv[1])]
for process in started:
    process.kill()
    process.wait()
print(json.dumps([len(started), *[(one["state"], one["alive"], one["pid"]) for one in found + [jobs.status(sys.argv[1])]]]))
"""
    count, *seen = board.inside(code, folder)
    assert count == 1
    assert seen == [["queued", True, None]] * 3 + [["queued", False, None]]


def test_a_job_that_is_started_by_many_at_once_has_one_worker(board: Board, planned: Callable[..., work.Work]) -> None:
    folder = board.send(planned())
    words = [sys.executable, str(board.script), "start", folder]
    many = [subprocess.Popen(words, env=board.environment, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(60) for process in many] == [0] * 4
    assert board.ended(folder)["state"] == "done"
    assert len(board.calls(BUILD)) == 2
    assert len(board.calls(TIME)) == 2 * 3


def test_two_jobs_do_not_measure_at_once(board: Board, planned: Callable[..., work.Work]) -> None:
    folders = [board.send(planned(seed=seed)) for seed in (1, 2)]
    board.trouble(hangs=[BUILD])
    for folder in folders:
        board.ask("start", folder)
    board.until(lambda: any("behind job" in board.ask("status", folder)["text"] for folder in folders))
    board.trouble()
    assert [board.ended(folder)["state"] for folder in folders] == ["done", "done"]
    owners = [next(folder for folder in folders if folder in call) for call in board.calls("/results/")]
    first = owners[0]
    assert owners == sorted(owners, key=lambda folder: folder != first), "no call of one between two of the other"
    assert set(owners) == set(folders)


def test_a_job_that_is_stopped_while_it_waits_says_so(board: Board, planned: Callable[..., work.Work]) -> None:
    folder = board.send(planned())
    with (board.home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("abc")
        lock.flush()
        board.ask("start", folder)
        board.until(lambda: board.ask("status", folder)["text"] == "behind job abc")
        found = board.ask("stop", folder)
    assert (found["state"], found["text"], found["alive"]) == ("failed", "it was stopped", False)
    assert board.calls(BUILD) == []


def test_cleaning_up_ends_what_still_runs(board: Board, planned: Callable[..., work.Work]) -> None:
    folder = board.send(planned())
    board.trouble(hangs=[BUILD])
    board.ask("start", folder)
    board.until(lambda: board.calls(BUILD))
    pid = board.ask("status", folder)["pid"]
    board.run("clean", "all")
    assert not board.home.exists()
    board.until(lambda: folder.encode() not in _words_of(pid))


def _words_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    "name", sorted(one.name for one in (resources.files("edgepress.targets.remote") / "board").iterdir() if one.name.endswith(".py"))
)  # fmt: skip
def test_the_script_is_written_as_python_3_6_reads_it(name: str) -> None:
    text = (resources.files("edgepress.targets.remote") / "board" / name).read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 6))


# Runs what it is told, as sudo does, and keeps what that was; refuses where a file says so.
SUDO = """#!/bin/sh
[ "$1" = -n ] && shift
echo "$*" >>"$HERE/sudo"
[ -e "$HERE/no rights" ] && exit 1
case "$*" in
"jetson_clocks --store "*) echo before >"$3" ;;
"rm -f "*) rm -f "$3" ;;
"nvpmodel -m "*) [ -e "$HERE/takes a restart" ] || echo "$3" >"$HERE/mode" ;;
esac
"""
NVPMODEL = """#!/bin/sh
echo NV Power Mode: MODE_NAME
cat "$HERE/mode"
"""


@pytest.fixture
def clocks(board: Board, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A board whose clocks can be held; says what was done to them."""
    tools = board.folder / "tools"
    tools.mkdir()
    (tools / "sudo").write_text(SUDO)
    (tools / "sudo").chmod(0o755)
    (tools / "nvpmodel").write_text(NVPMODEL)
    (tools / "nvpmodel").chmod(0o755)
    (board.folder / "mode").write_text("2\n")
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    log = board.folder / "sudo"
    return lambda: [line for line in log.read_text().splitlines() if line.startswith("jetson_clocks")]


def saved(board: Board) -> str:
    return str(board.home / "clocks.saved")


@pytest.mark.parametrize("fails", [[], [BUILD]])
def test_clocks_are_put_back_whether_the_job_ends_well_or_not(
    board: Board, planned: Callable[..., work.Work], clocks: Callable[[], list[str]], fails: list[str]
) -> None:
    board.trouble(fails=fails)
    folder = board.send(planned(lock_clocks=True))
    begin(board, folder)
    assert board.ended(folder)["state"] == ("failed" if fails else "done")
    board.until(lambda: len(clocks()) == 3)
    store, hold, restore = clocks()
    assert (store, hold) == (f"jetson_clocks --store {saved(board)}", "jetson_clocks")
    assert restore == f"jetson_clocks --restore {saved(board)}"
    assert not (board.home / "clocks.saved").exists()


def test_clocks_that_a_killed_job_left_held_are_put_back_when_asked(
    board: Board, planned: Callable[..., work.Work], clocks: Callable[[], list[str]]
) -> None:
    board.trouble(hangs=[TIME])
    folder = board.send(planned(lock_clocks=True))
    begin(board, folder)
    board.until(lambda: board.calls(TIME))
    board.kill(board.ask("status", folder))
    assert (board.home / "clocks.saved").exists()
    assert board.ask("restore-clocks") == {"restored": True}
    assert clocks()[-1] == f"jetson_clocks --restore {saved(board)}"
    assert board.ask("restore-clocks") == {"restored": False}


def test_everything_is_removed_only_after_the_clocks_are_put_back(
    board: Board, planned: Callable[..., work.Work], clocks: Callable[[], list[str]]
) -> None:
    board.trouble(hangs=[TIME])
    folder = board.send(planned(lock_clocks=True))
    begin(board, folder)
    board.until(lambda: board.calls(TIME))
    board.kill(board.ask("status", folder))
    board.ask("clean", "all")
    assert clocks()[-1] == f"jetson_clocks --restore {saved(board)}"


def mode(board: Board) -> str:
    return (board.folder / "mode").read_text().strip()


@pytest.mark.parametrize("fails", [[], [BUILD]])
def test_a_power_mode_is_for_the_measurement_alone(
    board: Board, planned: Callable[..., work.Work], clocks: Callable[[], list[str]], fails: list[str]
) -> None:
    board.trouble(fails=fails, hangs=[] if fails else [TIME])
    folder = board.send(planned(power_mode=0))
    begin(board, folder)
    if fails:
        assert board.ended(folder)["state"] == "failed"
    else:
        board.until(lambda: board.calls(TIME))
        assert mode(board) == "0"
        board.kill(board.ask("status", folder))
        assert mode(board) == "0", "nobody could put it back"
        assert board.ask("restore-clocks") == {"restored": True}
    board.until(lambda: mode(board) == "2")
    board.until(lambda: not (board.home / "power-mode.saved").exists())
    told = (board.folder / "sudo").read_text().splitlines()
    assert told == ["nvpmodel -m 0", "nvpmodel -m 2"]


def test_a_power_mode_that_is_set_already_is_left_alone(
    board: Board, planned: Callable[..., work.Work], clocks: Callable[[], list[str]]
) -> None:
    folder = board.send(planned(power_mode=2))
    begin(board, folder)
    assert board.ended(folder)["state"] == "done"
    assert not (board.folder / "sudo").exists()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("takes a restart", "power mode 0 takes a restart of the board"),
        ("no rights", "nvpmodel does not run with sudo"),
    ],
)
def test_a_power_mode_that_the_board_does_not_take_ends_the_job_and_is_told(
    board: Board, planned: Callable[..., work.Work], clocks: Callable[[], list[str]], trouble: str, said: str
) -> None:
    (board.folder / trouble).touch()
    folder = board.send(planned(power_mode=0))
    begin(board, folder)
    state = board.ended(folder)
    assert state["state"] == "failed"
    assert said in state["text"]
    assert not board.calls(BUILD)


def test_clocks_that_cannot_be_held_end_the_job_and_are_told(
    board: Board, planned: Callable[..., work.Work], clocks: Callable[[], list[str]]
) -> None:
    (board.folder / "no rights").touch()
    folder = board.send(planned(lock_clocks=True))
    begin(board, folder)
    state = board.ended(folder)
    assert state["state"] == "failed"
    assert "the clocks cannot be held" in state["text"]
    assert not board.calls(BUILD)
