"""Which files an import takes for those that ran on the board."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepress.pipeline import importing
from edgepress.targets.errors import RecipeError


def results(**models: bytes) -> Any:
    names = {name: f"models/{name}.onnx" for name in models}
    return SimpleNamespace(
        manifest={
            "engines": [{"name": name, "model": path} for name, path in names.items()],
            "files": [
                {"path": path, "sha256": hashlib.sha256(models[name]).hexdigest()} for name, path in names.items()
            ],
        }
    )


def test_a_file_that_is_made_for_boards_alone_is_looked_for_in_the_bundle(tmp_path: Path) -> None:
    """From TensorRT 11 on the twin in FP16 is a file of its own, and it is not among the models that are shipped."""
    for folder, name in (("models", "baseline"), ("bundle/models", "half")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{name}.onnx").write_bytes(name.encode())
    importing._refuse_other_models(results(baseline=b"baseline", half=b"half"), tmp_path)
    with pytest.raises(RecipeError, match="half.onnx is not the file that ran on the board"):
        importing._refuse_other_models(results(half=b"another"), tmp_path)
    with pytest.raises(RecipeError, match="gone.onnx is not the file"):
        importing._refuse_other_models(results(gone=b""), tmp_path)


def test_an_archive_that_was_imported_stays_for_the_next_time(tmp_path: Path) -> None:
    archive, out = tmp_path / "results.tar", tmp_path / "out"
    out.mkdir()
    archive.write_bytes(b"first")
    importing._keep(archive, out)
    importing._keep(out / importing.IMPORTED, out)
    assert (out / importing.IMPORTED).read_bytes() == b"first"
    archive.write_bytes(b"second")
    importing._keep(archive, out)
    assert (out / importing.IMPORTED).read_bytes() == b"second"
    assert [path.name for path in out.iterdir()] == [importing.IMPORTED]


def test_an_archive_that_is_damaged_since_is_told_and_the_stand_in_stays(tmp_path: Path) -> None:
    (tmp_path / importing.IMPORTED).write_bytes(b"no archive")
    report: Any = SimpleNamespace(bundle="bundle")
    notes: list[str] = []
    assert importing.take_again(report, tmp_path, note=notes.append) is report
    assert "no tar archive" in notes[0]
    over_ssh: Any = SimpleNamespace(bundle=None)
    assert importing.take_again(over_ssh, tmp_path, note=notes.append) is over_ssh
    assert len(notes) == 1, "where the board is reached there is nothing to import"
