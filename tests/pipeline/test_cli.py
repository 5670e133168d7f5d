"""The command line: every wrong word gets a message, an exit code and no traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from command import run

from edgepress.pipeline import cli, job
from edgepress.targets import runtimes

NET = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

def explode():
    raise ZeroDivisionError("one divided by nothing")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def small(*words: str) -> list[str]:
    return ["--model", "net.py:make", "--data", "builtin:digits", *words]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "jetson-nan"], "did you mean 'jetson-nano'"),
        (["--set", "prnue.ratio=1"], "did you mean 'prune'"),
        (["--set", "prune.ratoi=1"], "did you mean 'ratio'"),
        (["--set", "prune.ratio=7"], "less than 1"),
        (["--set", "ratio"], "KEY=VALUE"),
        (["--budget", "latency=4"], "did you mean 'latency_ms'"),
        (["nowhere.yaml"], "cannot read the recipe nowhere.yaml"),
        (["--data", "builtin:digits"], "--model"),
        (["--model", "net.py:make", "--data", "imagefolder:nowhere"], "nowhere"),
        (["--model", "gone.py:make", "--data", "builtin:digits"], "gone.py"),
        (["--model", "net.py:mke", "--data", "builtin:digits"], "did you mean 'make'"),
        (["--model", "net.py:explode", "--data", "builtin:digits"], "one divided by nothing"),
        (["--model", "net.py:make", "--data", "builtin:digits", "--weights", "gone.pt"], "gone.pt"),
        (["--model", "net.py:make", "--data", "builtin:digit"], "digits"),
        (["--set", "stages=[quantize,prune]"], "prune takes a float model"),
        (["--set", "stages=[train,prune]"], "without export there is no file to ship"),
        (["--set", "export=off", "--set", "profile=off"], "without export there is no file to ship"),
    ],
)
def test_a_wrong_word_is_exit_code_2_and_a_message(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, _, said = run(capsys, *words)
    assert code == 2
    assert message in said


def test_an_unknown_option_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--fast"])
    assert caught.value.code == 2


def test_weights_that_do_not_fit_name_their_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"1.weight": torch.zeros(5, 64), "9.bias": torch.zeros(3)}}, "w.pt")
    code, _, said = run(capsys, *small("--weights", "w.pt"))
    assert code == 2
    assert "1.weight" in said
    assert "9.bias" in said


def test_a_checkpoint_that_is_a_pickle_of_code_is_refused_with_the_way_to_convert_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torch.nn.Linear(2, 2), "whole.pt")
    code, _, said = run(capsys, *small("--weights", "whole.pt"))
    assert code == 2
    assert "state_dict" in said


def test_an_output_folder_that_cannot_be_written_is_said_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").write_text("a file")
    code, _, said = run(capsys, *small("--out", "taken/out"))
    assert code == 2
    assert "--out" in said


def test_a_missing_runtime_is_exit_code_3_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runtimes.TARGETS["openvino"], "unavailable", lambda: "openvino is not installed: pip install openvino"
    )
    code, _, said = run(capsys, *small())
    assert code == 3
    assert "pip install openvino" in said


def test_a_full_disk_is_said_in_words(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "compressed/x")

    monkeypatch.setattr(job, "read", full)
    code, _, said = run(capsys, *small())
    assert code == 5
    assert "No space left" in said
    assert "--out" in said


def test_ctrl_c_is_exit_code_130_and_says_how_to_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "read", stop)
    code, _, said = run(capsys, *small())
    assert code == 130
    assert "the same command goes on" in said


def test_an_error_is_json_where_json_was_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--json", "--target", "nowhere")
    assert json.loads(out)["exit_code"] == code == 2


def test_a_bug_travels_up_untouched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any) -> None:
        raise IndexError("ours")

    monkeypatch.setattr(job, "read", bug)
    with pytest.raises(IndexError):
        cli.main(small())


def test_a_dry_run_prints_every_setting_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    code, out, _ = run(capsys, *small("--dry-run", "--target", "jetson-nano", "--json"))
    plan = json.loads(out)
    stages = {stage["name"]: stage for stage in plan["stages"]}
    assert code == 0
    assert "no INT8 units" in stages["quantize"]["skipped"]
    assert stages["prune"]["settings"]["ratio"] == 0.3
    assert "cannot be reached" in plan["where"]
    assert sorted(folder.rglob("*")) == before
    code, out, _ = run(capsys, *small("--dry-run"))
    assert code == 0
    for word in ("prune", "ratio", "skipped", "accuracy_drop"):
        assert word in out


def test_targets_lists_every_profile_with_what_can_be_done_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "targets", "--json")
    here = {entry["name"]: entry["here"] for entry in json.loads(out)}
    assert code == 0
    assert here["openvino-cpu"] == "yes"
    assert here["jetson-nano"].startswith("no: exported here")
    assert "jetson-orin-nano" in run(capsys, "targets")[1]


def test_check_tells_good_from_bad_and_reports_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.yaml").write_text("model: net.py:make\ndata: builtin:digits\n")
    Path("bad.yaml").write_text("model: net.py:make\nprune: {ratio: 2}\n")
    Path("board.yaml").write_text("name: board\nboard: mine\nruntime: openvino\nprecisions: [fp32, int8]\n")
    code, out, said = run(capsys, "check", "good.yaml", "bad.yaml", "board.yaml", "gone.yaml")
    assert code == 2
    assert "good.yaml: a good recipe" in out
    assert "bad.yaml:2: prune.ratio" in said
    assert "data is missing" in said
    assert "qdq" in said
    assert "gone.yaml" in said
    assert run(capsys, "check", "good.yaml")[0] == 0


@pytest.mark.parametrize("kind", ["recipe", "profile", "report"])
def test_the_schemas_are_json_schemas(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    code, out, _ = run(capsys, "schema", kind)
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(out))


def test_the_shipped_example_fits_the_recipe_schema(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    schema = json.loads(run(capsys, "schema", "recipe")[1])
    text = (Path(job.__file__).parent / "example.yaml").read_text(encoding="utf-8")
    expanded = yaml.safe_load(text) | {"model": {"source": "a"}, "student": {"source": "b"}}
    assert not list(jsonschema.Draft202012Validator(schema).iter_errors(expanded))
    wrong = expanded | {"prune": {"ratio": "much"}}
    assert [error.json_path for error in jsonschema.Draft202012Validator(schema).iter_errors(wrong)] == ["$.prune"]


def test_report_of_a_folder_without_one_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, "report", str(folder))
    assert code == 2
    assert "report.json" in said


def test_profile_refuses_what_is_no_onnx_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("junk.onnx").write_bytes(b"\x00\x01junk" * 50)
    assert run(capsys, "profile", "junk.onnx")[0] == 2
    assert run(capsys, "profile", "gone.onnx")[0] == 2


@pytest.mark.slow
def test_profile_measures_onnx_files_in_turn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nets import net

    from edgepress.stages.onnx_file import write_onnx

    for name, width in (("small", 8), ("wide", 128)):
        write_onnx(
            net(width=width), folder / f"{name}.onnx", example=torch.zeros(1, 1, 8, 8), opset=13, dynamic_batch=False, metadata={}
        )  # fmt: skip
    code, out, _ = run(
        capsys, "profile", "wide.onnx", "small.onnx", "--target", "onnxruntime-cpu", "--seconds", "1", "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["where"] == "device"
    assert found["models"]["small"]["speedup"]["value"] > 2
    assert found["models"]["wide"]["memory_mb"]["peak"] > 10
    assert "times faster" in run(capsys, "profile", "wide.onnx", "small.onnx", "--seconds", "1", "--quiet")[1]
    assert shutil.which("compress")


@pytest.mark.parametrize("option", [["--lock-clocks"], ["--power-mode", "0"]])
def test_clocks_of_no_board_are_not_held_in_silence(capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    assert cli.main(["--target", "openvino-cpu", *option, "--dry-run"]) == 2
    assert "name it with --device" in " ".join(capsys.readouterr().err.split())
