"""A real run, forced, verified, tampered with, and compared: everything as a user does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import net, stripes

from edgepress.pipeline import cli
from edgepress.pipeline.api import Result, compress
from edgepress.pipeline.remeasuring import ACCURACY, SPEED
from edgepress.pipeline.verifying import verify
from edgepress.targets.errors import RecipeError

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "stages": ["prune", "quantize", "export", "profile"], "prune.ratio": 0.3, "prune.epochs": 1, "quantize.epochs": 0,
    "profile.seconds": 1.0, "profile.all_cores": False, "profile.memory": False,
}  # fmt: skip


def run(folder: Path, *, ship: str | None = None) -> Result:
    torch.manual_seed(0)
    splits = {"train": stripes(256, seed=0), "test": stripes(200, seed=1)}
    return compress(
        model=net(), data=splits, target="openvino-cpu", settings=SETTINGS, out=folder, ship=ship, quiet=True,
        budget={"accuracy_drop": 100.0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def forced(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run that ships the calibrated, unpruned model, whatever the guard says."""
    return run(tmp_path_factory.mktemp("forced"), ship="baseline-int8")


def test_the_named_variant_is_shipped_and_the_report_says_that_it_was_forced(forced: Result) -> None:
    assert forced.report.chosen.name == "baseline-int8"
    assert forced.report.chosen.forced
    assert "--ship" in forced.report.chosen.why
    assert "forced with --ship" in (forced.folder / "report.md").read_text()


def test_every_variant_of_the_issue_is_there_with_its_layers(forced: Result) -> None:
    found = {variant.name: variant for variant in forced.report.variants}
    assert {"baseline", "baseline-int8", "pruned", "int8"} <= found.keys()
    for name in ("baseline", "int8"):
        layers = found[name].layers
        assert layers is not None
        assert {layer.layer for layer in layers.layers} >= {"stem", "block.conv1", "block.conv2", "head"}


def test_it_verifies_and_the_images_that_were_in_memory_are_not_guessed(forced: Result) -> None:
    checks = {check.name: check for check in verify(forced.folder, seconds=1.0)}
    timed = checks.pop(SPEED)  # what another measurement gives on a busy machine is not foreseen here
    assert not [check for check in checks.values() if check.ok is False], checks
    assert checks[ACCURACY].ok is None
    assert "--data" in checks[ACCURACY].text
    assert "times faster" in timed.text


def test_a_changed_model_fails_the_check_and_is_not_run(forced: Result) -> None:
    weights = forced.path.with_suffix(".bin")
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert cli.main(["verify", str(forced.folder)]) == 5
    finally:
        weights.write_bytes(kept)


def test_two_runs_on_one_machine_can_be_compared(
    forced: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run(tmp_path / "free")
    assert cli.main(["compare", str(forced.folder), str(other.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["chosen"]["forced"] for entry in found["runs"]] == [True, False]


def test_a_name_that_no_variant_has_is_refused_after_all_stages_were_kept(forced: Result) -> None:
    with pytest.raises(RecipeError, match="no such variant"):
        run(forced.folder, ship="nobody")
