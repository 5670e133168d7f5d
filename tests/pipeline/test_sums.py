"""The sums name what was shipped, and lead nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.pipeline import sums
from edgepress.targets.digests import sha256


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished run's folder, without its stages."""
    folder = tmp_path / "out"
    for name, text in {
        "report.json": "{}",
        "models/a.onnx": "a",
        "bundle/run.sh": "b",
        "bundle/results/log": "c",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_models_bundle_and_report_are_listed_and_what_came_back_from_a_board_is_not(out: Path) -> None:
    sums.write(out)
    assert list(sums.read(out)) == ["report.json", "models/a.onnx", "bundle/run.sh"]


def test_the_list_is_one_that_sha256sum_reads(out: Path) -> None:
    sums.write(out)
    assert (out / sums.NAME).read_text().splitlines()[1] == (
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  models/a.onnx"
    )


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "models/../../x", "a\0b", "x" * 5000])
def test_a_name_that_leads_out_of_the_folder_is_nobodys(out: Path, name: str) -> None:
    found = sums.inside(out, name)
    assert found is None or not found.is_file()


def test_a_link_that_leads_out_of_the_folder_is_nobodys(out: Path) -> None:
    (out / "models/link.onnx").symlink_to("/etc/hostname")
    assert sums.inside(out, "models/link.onnx") is None


@pytest.mark.parametrize("text", ["nonsense", "abc  name", "g" * 64 + "  name", "a" * 64 + " name"])
def test_a_list_of_another_form_is_refused(out: Path, text: str) -> None:
    (out / sums.NAME).write_text(text)
    with pytest.raises(ValueError, match="line 1"):
        sums.read(out)


def test_a_rendering_that_is_made_again_gets_its_new_sum(out: Path) -> None:
    sums.write(out)
    before = sha256(out / "report.json")
    (out / "report.json").write_text("{ }")
    sums.renew(out, "report.json", before=before)
    assert sums.read(out)["report.json"] == sha256(out / "report.json")


def test_a_file_that_somebody_else_changed_stays_wrong(out: Path) -> None:
    sums.write(out)
    (out / "report.json").write_text("tampered")
    before = sha256(out / "report.json")
    (out / "report.json").write_text("tampered and rendered")
    sums.renew(out, "report.json", before=before)
    assert sums.read(out)["report.json"] != sha256(out / "report.json")
