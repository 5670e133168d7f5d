"""`compress losses`: every loss describes itself well enough to be used."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from edgepress.pipeline import cli, methods
from edgepress.pipeline.methods import method, paper
from edgepress.stages.distill.losses import LOSSES
from edgepress.stages.distill.stage import Distill

NOBODYS = {"ce", "bce", "mse"}  # losses older than anybody's paper on them


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["losses", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_says_what_it_computes_whose_it_is_and_how_a_recipe_asks_for_it(name: str) -> None:
    found = method(name)
    assert len(found.formula) > 20
    assert (found.paper is None) == (name in NOBODYS), found.text
    assert json.loads(json.dumps(found.options)) == found.options
    settings = yaml.safe_load(found.example)["distill"]
    assert name in settings["loss"]
    if not found.required:
        assert name in Distill(**settings).losses()


def test_the_table_lists_every_loss_with_its_paper(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    assert sorted(line.split()[0] for line in out.splitlines() if line.split()[:1] and line.split()[0] in LOSSES) == (
        sorted(LOSSES)
    )
    assert "arXiv:1503.02531" in out


def test_every_loss_stands_under_one_heading() -> None:
    assert sorted(name for names in methods.by_family().values() for name in names) == sorted(LOSSES)


def test_json_holds_everything_that_the_table_does(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--json")
    found: list[dict[str, Any]] = json.loads(out)
    assert code == 0
    assert [one["name"] for one in found] == list(LOSSES)
    kd = found[list(LOSSES).index("kd")]
    assert kd["needs"] == ["teacher"]
    assert kd["options"]["temperature"] == 4
    assert "reverse" in kd["choices"]["kind"]


def test_one_loss_is_explained_with_its_options_and_a_line_of_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "at")
    assert code == 0
    for words in ("arXiv:1612.03928", "@stages", "option   power (default 2)", "at: {weight: 1000, power: 2}"):
        assert words in out


def test_an_unknown_loss_names_its_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, "dkdd")
    assert code == 2
    assert "did you mean 'dkd'" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("T^2 KL. Hinton et al., 2015 (arXiv:1503.02531), section 2.", "Hinton et al., 2015 (arXiv:1503.02531)"),
        ("CAKD: Zhang et al., 2024 (CA, arXiv:2410.14741), read", "Zhang et al., 2024 (arXiv:2410.14741)"),
        ("By Ji, Heo & Park, 2021 (AAAI), AFD.", "Ji, Heo & Park, 2021 (AAAI)"),
        ("The form of van den Oord et al., 2018\n(arXiv:1807.03748)", "van den Oord et al., 2018 (arXiv:1807.03748)"),
        ("generalisation (Wolpert, 1992) with one", "Wolpert, 1992"),
        ("Cross-entropy with the labels: -log p_y.", None),
    ],
)
def test_the_paper_is_found_in_the_docstring(text: str, expected: str | None) -> None:
    assert paper(text) == expected


def test_what_an_option_may_be_is_listed_where_there_is_a_list() -> None:
    assert method("kd").choices["kind"][:2] == ("forward", "reverse")
    assert "temperature" not in method("kd").choices


def test_an_option_without_a_default_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert method("specialists").required == ("classes",)
    assert "classes (must be given)" in run(capsys, "specialists")[1]
    assert methods.method("specialists").options["classes"] is None
