from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from edgepress.pipeline.run import make_writable
from edgepress.targets.errors import RecipeError


def tried(out: Path, times: int) -> None:
    for _ in range(times):
        make_writable(out)


def test_the_processes_of_one_job_try_its_output_folder_at_the_same_time(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with ProcessPoolExecutor(2) as pool:
        for trial in [pool.submit(tried, out, 400) for _ in range(2)]:
            trial.result()
    assert os.listdir(out) == []


def test_an_output_folder_that_cannot_be_made_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="cannot write to the output folder .*Name another with --out"):
        make_writable(tmp_path / "file" / "out")
