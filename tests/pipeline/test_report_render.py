"""report.json is the truth, is published, and survives."""

import json
import math
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError
from report_sample import sample_report

from edgepress.pipeline.report import render
from edgepress.pipeline.report.schema import Parity, Ratio, StageFacts
from edgepress.targets.errors import RecipeError, StageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("run") / "made" / "on demand"
    render.write(sample_report(), where)
    return where


def test_what_is_written_is_what_is_read(folder: Path) -> None:
    assert render.read(folder) == sample_report()


def test_the_folder_holds_three_renderings_and_nothing_temporary(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md"]


def test_the_json_keeps_the_published_schema(folder: Path) -> None:
    schema = render.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    checker = jsonschema.Draft202012Validator(schema)
    values = json.loads((folder / "report.json").read_text())
    checker.validate(values)
    del values["variants"][0]["latency_ms"]["ci95"]
    assert not checker.is_valid(values)


def test_every_round_of_samples_is_one_line_of_the_json(folder: Path) -> None:
    lines = (folder / "report.json").read_text().splitlines()
    rounds = [visit for variant in sample_report().variants for visit in variant.latency_ms.samples]
    assert sum(len(rounds[0]) == line.count(",") + (not line.endswith(",")) for line in lines) >= len(rounds)


def test_a_folder_without_a_report_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no report at .*report\.json.*Name the --out folder"):
        render.read(tmp_path)


def test_a_cut_off_report_says_where_it_breaks_and_how_to_make_it_again(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"schema_version": "1.0",\n "run": {')
    with pytest.raises(RecipeError, match=r"is not JSON \(line 2: .*\. Run `compress` again"):
        render.read(tmp_path)


def test_bytes_that_are_no_text_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        render.read(tmp_path)


@pytest.mark.parametrize("version", ["0.9", None, 2])
def test_another_schema_version_is_refused_with_both_versions(tmp_path: Path, version: object) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"schema_version": version}))
    with pytest.raises(RecipeError, match=rf"has schema version {version!r}; this program reads '1\.0'"):
        render.read(tmp_path)


def test_a_report_that_lacks_keys_names_them(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"schema_version": "1.0", "variants": [{}]}')
    with pytest.raises(RecipeError, match=r"run: Field required(.|\n)*and \d+ more"):
        render.read(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StageError, match="name another folder with --out"):
        render.write(sample_report(), tmp_path / "file" / "run")


def test_a_failed_write_leaves_the_report_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("the old one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StageError, match="No space left on device"):
        render.write(sample_report(), tmp_path)
    assert path.read_text() == "the old one"
    assert [found.name for found in tmp_path.iterdir()] == ["report.json"]


def test_a_loss_that_overflowed_is_null_and_not_broken_json(tmp_path: Path) -> None:
    report = sample_report()
    stage = report.stages[0].model_validate({**report.stages[0].model_dump(), "curves": {"loss": [1.0, math.nan]}})
    report = report.model_copy(update={"stages": [stage]})
    render.write(report, tmp_path)
    assert render.read(tmp_path).stages[0].curves == {"loss": [1.0, None]}
    assert Parity(argmax_agreement=0, max_abs_diff=math.inf, n=1, ok=False).max_abs_diff is None


def test_a_figure_that_is_no_number_never_enters_a_report() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Ratio(value=math.nan, ci95=(1.0, 2.0))


def test_any_metric_comes_back_as_it_was_put_in(tmp_path: Path) -> None:
    metrics = {
        "channels": np.array([8, 16]),
        "share": np.float32(0.5),
        "loss": np.nan,
        "kept": (1, {"file": Path("a") / "b"}),
    }
    stage = StageFacts(name="prune", settings={}, seconds=1.0, metrics=metrics, curves={}, reused=False, skipped=None)
    report = sample_report().model_copy(update={"stages": [stage]})
    render.write(report, tmp_path)
    expected = {"channels": [8, 16], "share": 0.5, "loss": None, "kept": [1, {"file": "a/b"}]}
    assert render.read(tmp_path).stages[0].metrics == expected == stage.metrics


def test_nothing_heavy_is_imported_before_there_is_something_to_draw() -> None:
    heavy = "{'matplotlib', 'numpy', 'torch'}"
    code = f"import edgepress.pipeline.report.render, sys; sys.exit(str({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr.strip() == "set()"
