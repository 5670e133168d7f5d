"""The benchmarks of whole chains and of the recipes: what they read from reports, and that they run and go on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from report_sample import sample_report

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """It imports its neighbours by file name, as a script does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent / "examples"))
    return importlib.import_module("distill_chain")


def test_a_quantised_student_is_compared_with_itself_in_float_and_with_the_teacher(chain: Any) -> None:
    report = sample_report()
    found = chain.figures(report, report)
    assert found["shipped int8"] == 1.0
    assert found["teacher"] == pytest.approx(100 * 443 / 449)
    assert found["plain"] == found["distilled"] == pytest.approx(100 * 441 / 449)
    assert found["faster_than_twin"] == pytest.approx(0.331 / 0.139, rel=0.05)
    assert found["faster_than_teacher"] == pytest.approx(0.842 / 0.139, rel=0.05)
    for of in ("twin", "teacher"):
        value, low, high = (found[f"faster_than_{of}{end}"] for end in ("", "_low", "_high"))
        assert low < value < high


def test_another_precision_of_a_network_is_compared_with_the_network(chain: Any) -> None:
    variants = {variant.name: variant for variant in sample_report().variants}
    bfloat = variants["pruned"].model_copy(update={"name": "pruned-bf16", "twin_of": "pruned", "precision": "bf16"})
    assert chain.twin_of(bfloat) == "pruned"
    assert chain.twin_of(variants["int8"]) == "distilled"
    assert chain.twin_of(variants["baseline"]) == "baseline"


def test_a_float_network_that_is_shipped_is_its_own_twin(chain: Any) -> None:
    report = sample_report()
    kept = report.model_copy(update={"chosen": report.chosen.model_copy(update={"name": "baseline"})})
    found = chain.seeds.Results(file=None, settings={})
    found.run("text", 0, lambda: chain.figures(kept, report))
    assert "| is it | is it |" in chain.by_seed(found, ["text"])


def test_the_tables_show_every_seed_and_the_difference_that_distillation_makes(chain: Any) -> None:
    report = sample_report()
    found = chain.seeds.Results(file=None, settings={})
    for seed in (0, 1):
        figures = chain.figures(report, report)
        found.run("text", seed, lambda seed=seed, figures=figures: {**figures, "plain": figures["plain"] - 1 - seed})
    (row,) = (line for line in chain.by_network(found, ["text"]).splitlines() if line.startswith("| text |"))
    assert "| +1.50 (" in row
    assert row.endswith("| 449 | 2 |")
    assert [line[:9] for line in chain.by_seed(found, ["text"]).splitlines()[2:]] == ["| text, 0", "| text, 1"]


@pytest.mark.parametrize("network", ["text", "vit"])
def test_other_data_are_another_run(network: str, chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = chain.CHAINS[network]
    first = one.facts()
    assert one.facts() == first
    for name in (one.networks, *one.files):
        (tmp_path / name).write_bytes((chain.EXAMPLES / name).read_bytes())
    monkeypatch.setattr(chain, "EXAMPLES", tmp_path)
    assert one.facts() == first
    with (tmp_path / one.files[0]).open("a") as file:
        file.write("\n# another grammar, or other shapes\n")
    assert one.facts() != first


@pytest.mark.slow
@pytest.mark.parametrize("network", ["text", "vit"])
def test_a_chain_runs_and_is_not_run_again(
    network: str, chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--quick", "--only", network, "--target", "onnxruntime-cpu", "--json", str(tmp_path / "out.json"))
    monkeypatch.setattr(sys, "argv", ["distill_chain.py", *words])
    chain.main()
    first = capsys.readouterr()
    assert f"| {network}, 0 |" in first.out
    chain.main()
    second = capsys.readouterr()
    assert second.err == ""  # nothing was trained
    assert second.out.partition("\n|")[2] == first.out.partition("\n|")[2]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["graph", "policy"])
def test_the_recipes_are_compared_over_seeds(
    recipe: str, chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = importlib.import_module("distill_recipes")
    words = ("--quick", "--seeds", "0,1", "--only", recipe, "--keep", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["distill_recipes.py", *words])
    recipes.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith("| 2 |")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(recipes.NAMES[recipe][1])
    assert all("(" in row for row in rows if not row.startswith("| distilled |"))
