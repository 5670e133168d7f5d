from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import edgepress
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
    assert not any(out.iterdir())


def test_an_output_folder_that_cannot_be_made_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="cannot write to the output folder .*Name another with --out"):
        make_writable(tmp_path / "file" / "out")


class Scaled(nn.Module):
    """Nothing in it can be pruned or quantised."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4] * self.scale


@pytest.mark.slow
def test_stages_that_do_not_suit_the_model_are_left_out_with_the_reason_and_the_run_goes_on(tmp_path: Path) -> None:
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 4

    def run() -> edgepress.Result:
        return edgepress.compress(
            model=Scaled(), data={"train": (images, labels), "test": (images, labels)}, target="openvino-cpu",
            settings={"profile.seconds": 1, "profile.all_cores": False, "profile.memory": False, "prune.epochs": 0,
                      "quantize.epochs": 0, "profile.layers": False}, out=tmp_path / "out", quiet=True,
        )  # fmt: skip

    found = run()
    skipped = {stage.name: stage.skipped for stage in found.report.stages if stage.skipped}
    assert "no channel could be removed" in str(skipped["prune"])
    assert "no convolution or linear layer was found" in str(skipped["quantize"])
    assert found.chosen.name == "baseline"
    again = {stage.name: stage.skipped for stage in run().report.stages if stage.skipped}
    assert again == skipped
    assert any(stage.reused for stage in run().report.stages if stage.name == "prune")
