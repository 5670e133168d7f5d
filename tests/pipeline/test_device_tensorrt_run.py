"""`compress --device` and the bundle for boards with TensorRT: the whole job, with a stand-in for its tool."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import fake_trtexec
import pytest
from command import run
from sshd import Server

from edgepress.pipeline import importing
from edgepress.pipeline.report import render
from edgepress.pipeline.report.schema import Report
from edgepress.targets import profiles

pytestmark = [pytest.mark.device, pytest.mark.slow]

Changer = Callable[[dict[str, bytes]], None]
SAMPLES = 4
SHORT = [
    "--model=builtin:digits-student", "--data=builtin:digits", "--set=stages=[train,prune,quantize,export,profile]",
    "--set=train.epochs=1", "--set=train.lr=0.003", "--set=train.batch_size=64", "--set=prune.epochs=1",
    "--set=quantize.epochs=1", "--set=profile.seconds=0.3",
]  # fmt: skip
WHOLE = "10.3.0"  # the version for which every stage runs; the others differ in how files are built and timed
VERSIONS = [("8201", "8.2.1"), ("8601", "8.6.1"), ("100300", "10.3.0"), ("101601", "10.16.1"), ("110100", "11.1.0")]


def tool(path: Path, **environment: str) -> None:
    """Put a stand-in there that behaves like that."""
    settings = " ".join(f"FAKE_TRT_{name.upper()}={value}" for name, value in environment.items())
    path.write_text(f'#!/bin/sh\nexec env {settings} {sys.executable} {fake_trtexec.__file__} "$@"\n')
    path.chmod(0o755)


def profile_for(folder: Path, version: str) -> Path:
    """A profile of somebody's own, for a board with that TensorRT."""
    path = folder / "own.yaml"
    opset = 13 if version.startswith("8.2") else 19 if version.startswith("11.") else 17
    path.write_text(
        f"name: own\nboard: A board of my own\nruntime: tensorrt\nruntime_version: {version}\nopset: {opset}\n"
        "precisions: [fp32, fp16, int8]\nqdq: trt\nchannel_multiple: 8\ndevice: none\nstand_in: onnxruntime\n"
        f"trtexec: {{workspace_mb: 256, samples: {SAMPLES}, rounds: 3}}\nbudget: {{accuracy_drop: 50.0}}\n"
    )
    assert profiles.load(str(path)).runtime_version == version
    return path


def timed_there(report: Report, version: str) -> None:
    """Every figure comes from the board, and is one that the tool gave."""
    precisions = {variant.name: variant.precision for variant in report.variants}
    expected = {"baseline": "fp32", "baseline-fp16": "fp16", "int8": "int8"}
    if version == WHOLE:
        expected |= {"baseline-int8": "int8", "pruned": "fp32", "pruned-fp16": "fp16"}
    assert precisions == expected
    for variant in report.variants:
        assert not [text for text in variant.warnings if "could not" in text], variant.warnings
        assert variant.latency_ms is not None
        assert (variant.latency_ms.where, variant.latency_ms.runtime) == ("device", "tensorrt")
        assert len(variant.latency_ms.samples) == 3
        assert variant.accuracy is not None
        assert variant.accuracy.n == SAMPLES
        assert variant.val_accuracy is not None
        assert variant.parity is not None
        assert variant.parity.n == SAMPLES
        assert variant.memory_mb is not None
        assert variant.layers is not None, "by trtexec's profile"
        assert {layer.role for layer in variant.layers.layers} == {"weighted", "conversion"}
        assert all(layer.layer for layer in variant.layers.layers)
        assert (variant.layers.int8_share > 0.5) == (variant.precision == "int8")
        if variant.precision == "int8":
            assert variant.int8 is not None
            assert variant.int8["int8_layers"] == variant.int8["weighted_layers"]
    assert report.run.versions.get("tensorrt", version) == version
    assert any(f"answered {SAMPLES} test samples" in text for text in report.caveats)


@pytest.mark.parametrize(("code", "version"), VERSIONS)
def test_every_generation_of_the_tool_goes_from_upload_to_report(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    server: Server,
    tmp_path: Path,
    code: str,
    version: str,
) -> None:
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(server.config))
    tool(server.folder / "trtexec", code=code)
    profile, out = profile_for(tmp_path, version), tmp_path / "out"
    stages = [] if version == WHOLE else ["--set=stages=[train,quantize,export,profile]"]
    words = ["--target", str(profile), "--device", server.address, "--out", str(out), *SHORT, *stages]
    code_of_run, _, said = run(capsys, *words)
    assert code_of_run in (0, 4), said
    timed_there(render.read(out), version)
    assert run(capsys, "verify", str(out), "--no-measure")[0] == 0


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose board cannot be reached, and what its bundle found on a stand-in for one."""
    from edgepress.pipeline import cli

    folder = tmp_path_factory.mktemp("carried")
    out = folder / "out"
    words = ["--target", str(profile_for(folder, "10.3.0")), "--out", str(out), "--quiet", *SHORT]
    assert cli.main([*words, "--set=profile.all_cores=false"]) in (0, 4)
    tools = folder / "tools"
    tools.mkdir()
    tool(tools / "trtexec", code="100300")
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", str(out / "bundle/run.sh")], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "int8: median latency" in done.stdout
    return out, out / "bundle/results.tar"


def test_what_a_bundle_found_comes_into_the_report_as_measured_on_the_device(
    capsys: pytest.CaptureFixture[str], carried: tuple[Path, Path]
) -> None:
    out, archive = carried
    before = render.read(out)
    assert {variant.latency_ms.where for variant in before.variants if variant.latency_ms} <= {"stand-in"}
    assert run(capsys, "verify", str(out), "--no-measure")[0] == 0, "a bundle that ran in place changes nothing"
    code, printed, said = run(capsys, "import", str(archive), "--out", str(out))
    assert code in (0, 4), said
    assert "Measured on" in printed
    report = render.read(out)
    timed_there(report, "10.3.0")
    assert report.verdict.met is not None or report.verdict.unreliable
    assert "not measured on the device" not in report.verdict.sentence
    assert run(capsys, "verify", str(out), "--no-measure")[0] == 0
    assert "Measured on" in (out / "report.html").read_text()


def test_the_same_command_again_keeps_the_figures_of_the_board(
    capsys: pytest.CaptureFixture[str], carried: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(carried[0], out := tmp_path / "out")
    archive = out / "bundle/results.tar"
    words = [
        "--target",
        str(carried[0].parent / "own.yaml"),
        "--out",
        str(out),
        *SHORT,
        "--set=profile.all_cores=false",
    ]
    assert run(capsys, "import", str(archive), "--out", str(out), "--quiet")[0] in (0, 4)
    code, _, said = run(capsys, *words)
    assert code in (0, 4), said
    assert "the figures are the board's again" in " ".join(said.split())
    timed_there(render.read(out), "10.3.0")
    assert archive.is_file(), "what the board left in the bundle's folder stays"
    assert run(capsys, "verify", str(out), "--no-measure")[0] == 0
    manifest = out / "bundle/manifest.json"
    notes: list[str] = []
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))  # as other models have
    report = render.read(out)
    assert importing.take_again(report, out, note=notes.append) is report
    assert "imported before are not in this report" in notes[0]
    assert "run the bundle of this one on the board" in notes[0]


def changed(archive: Path, to: Path, change: Changer, *, mend: bool = True) -> Path:
    """The archive with other contents. mend: with the sums of these."""
    with tarfile.open(archive) as members:
        contents = {one.name: members.extractfile(one).read() for one in members}  # type: ignore[union-attr]
    change(contents)
    if mend:
        import hashlib

        sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items() if name != "sums.json"}
        contents["sums.json"] = json.dumps(sums).encode()
    with tarfile.open(to, "w") as members:
        for name, data in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            members.addfile(entry, io.BytesIO(data))
    return to


def other_job(contents: dict[str, bytes]) -> None:
    contents["manifest.json"] = contents["manifest.json"].replace(b'"seed": 0', b'"seed": 1')


def garbage(contents: dict[str, bytes]) -> None:
    for name in contents:
        if "times-" in name:
            contents[name] = b"garbage"


CHANGES: dict[str, tuple[Changer, bool, str]] = {
    "another run": (other_job, True, "comes from another bundle"),
    "damaged": (lambda contents: contents.update({"probe.json": b"{}"}), False, "damaged or was changed (probe.json)"),
    "out of the folder": (lambda contents: contents.update({"results/../../x": b""}), True, "which no run leaves"),
    "absolute": (lambda contents: contents.update({"/etc/x": b""}), True, "which no run leaves"),
    "no facts": (lambda contents: contents.update({"probe.json": b"{}"}), True, "cannot be read"),
    "no manifest": (lambda contents: contents.pop("manifest.json") and None, True, "has no manifest.json"),  # type: ignore[func-returns-value]
    "garbage": (garbage, True, "is damaged"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_archive_that_is_not_what_the_run_left_is_refused(
    capsys: pytest.CaptureFixture[str], carried: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    out, archive = carried
    change, mend, words = CHANGES[name]
    before = (out / "report.json").read_bytes()
    code, _, said = run(
        capsys, "import", str(changed(archive, tmp_path / "changed.tar", change, mend=mend)), "--out", str(out)
    )
    assert code in (2, 5)
    assert words in said
    assert (out / "report.json").read_bytes() == before


def test_a_link_in_an_archive_is_refused(
    capsys: pytest.CaptureFixture[str], carried: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "link.tar"
    with tarfile.open(path, "w") as members:
        entry = tarfile.TarInfo("manifest.json")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        members.addfile(entry)
    code, _, said = run(capsys, "import", str(path), "--out", str(carried[0]))
    assert (code, "which no run leaves" in said) == (2, True)


def test_a_model_that_was_changed_since_takes_no_figures(
    capsys: pytest.CaptureFixture[str], carried: tuple[Path, Path]
) -> None:
    out, archive = carried
    path = out / "models/int8.onnx"
    before = path.read_bytes()
    path.write_bytes(before + b"x")
    try:
        code, _, said = run(capsys, "import", str(archive), "--out", str(out))
    finally:
        path.write_bytes(before)
    assert (code, "is not the file that ran on the board" in said) == (2, True)


def test_an_import_without_out_finds_the_run_or_says_how_to_name_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, carried: tuple[Path, Path], tmp_path: Path
) -> None:
    out, archive = carried
    monkeypatch.chdir(tmp_path)
    code, _, said = run(capsys, "import", str(archive))
    assert (code, "name its folder with --out" in said) == (2, True)
    (tmp_path / "compressed").mkdir()
    (tmp_path / "compressed/own").symlink_to(out)
    assert run(capsys, "import", str(archive), "--quiet")[0] in (0, 4)


def test_an_engine_that_cannot_be_built_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path
) -> None:
    """Every engine fails here: the reasons of all of them come back with their advice."""
    monkeypatch.setenv("EDGEPRESS_SSH_CONFIG", str(server.config))
    shutil.rmtree(server.board)  # engines are kept for further runs, also those of the tests before
    server.board.mkdir()
    tool(server.folder / "trtexec", code="100300", trouble="killed")
    words = [
        "--target",
        str(profile_for(tmp_path, "10.3.0")),
        "--device",
        server.address,
        "--out",
        str(tmp_path / "out"),
    ]
    code, _, said = run(capsys, *words, *SHORT, "--set=prune=off", "--set=quantize=off")
    assert code == 5
    assert "no engine could be built" in said
    assert "baseline: its engine could not be built" in said
    assert "out of memory" in said
