"""A run without data says so at the top of every rendering, and calls nothing accuracy that is none."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from finished_run import honest_report
from rich.console import Console
from synthetic_sample import COUNTS, without_data
from test_report_html import Page

from edgepress.pipeline.checks import check_figures
from edgepress.pipeline.comparing import differences
from edgepress.pipeline.made import agreement_of, judged_by, renamed, synthesis_of
from edgepress.pipeline.report import render
from edgepress.pipeline.report.html import contents, html
from edgepress.pipeline.report.markdown import markdown
from edgepress.pipeline.report.schema import AGREEMENT, Report, StageFacts, SynthesisControl
from edgepress.pipeline.report.terminal import print_report
from edgepress.stages.contract import Preprocessing
from edgepress.stages.data import Data
from edgepress.stages.splits import in_memory
from edgepress.stages.synthesis.pool import Pool
from edgepress.stages.synthesis.score import score
from edgepress.stages.synthesis.synthetic import Restart, Synthetic

LABEL = "agreement with the given model on images that were made"
REAL = "mnist:/data/mnist"


def terminal(report: Report) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=100))
    return " ".join(stream.getvalue().split())


def page_text(report: Report) -> str:
    return " ".join("".join(Page(html(report)).text).split())


def plain_markdown(report: Report) -> str:
    return markdown(report).replace("\\", "").replace("**", "")


RENDERINGS = pytest.mark.parametrize("rendering", [terminal, page_text, plain_markdown])


@RENDERINGS
def test_what_stands_for_accuracy_is_called_what_it_is(rendering: Any) -> None:
    text = rendering(without_data())
    assert "No data of the task were used: the 2048 images" in text
    assert f"What is reported in place of accuracy is {LABEL}" in text
    assert "cannot be known without some: name them with --eval-data" in text
    assert "points of agreement lost" in text.lower()
    assert "with the given model on 449 images that were made" in text
    assert len(re.findall("accura", text.partition("The recipe with")[0], re.IGNORECASE)) == len(("in place of", "How"))


@RENDERINGS
def test_with_real_data_that_judge_accuracy_is_accuracy(rendering: Any) -> None:
    text = rendering(without_data(evaluated_on=REAL))
    assert "No data of the task were used" in text
    assert f"Accuracy was measured on 449 test images of {REAL}, which chose nothing" in text
    assert "chosen by agreement with the given model on images that were made" in text
    assert "in place of accuracy" not in text
    assert "points of accuracy lost" in text.lower()


@RENDERINGS
def test_what_chose_between_variants_is_told_where_real_images_did(rendering: Any) -> None:
    report = without_data(evaluated_on=REAL)
    assert report.data is not None
    report = report.model_copy(update={"data": report.data.model_copy(update={"deciding": 112})})
    text = rendering(report)
    assert "epochs were chosen by agreement with the given model on images that were made" in text
    assert "and variants on 112 others of the same source" in text
    if rendering is page_text:
        assert f"real ones, of {REAL}: chose between variants" in text


@RENDERINGS
@pytest.mark.parametrize("evaluated_on", [None, REAL])
def test_nothing_is_said_to_be_measured_where_the_profile_stage_did_not_run(
    rendering: Any, evaluated_on: str | None
) -> None:
    report = without_data(evaluated_on=evaluated_on)
    for variant in report.variants:
        variant.accuracy = None
    text = rendering(report)
    assert "Nothing was measured on real data, nor on others" in text
    assert "was measured on 449" not in text
    assert "What is reported in place of accuracy" not in text


@RENDERINGS
def test_the_banner_stands_before_every_figure(rendering: Any) -> None:
    text = rendering(without_data())
    assert text.index("No data of the task") < text.index("97.6 % ±1.5" if rendering is not page_text else "0.139 ms")


@RENDERINGS
def test_a_collapse_is_said_at_the_top(rendering: Any) -> None:
    text = rendering(without_data(collapsed="the teacher takes 94 % of the images for class 3"))
    assert "Nothing good can be expected of these images: the teacher takes 94 % of the images for class 3." in text


def test_images_of_an_earlier_run_are_not_said_to_be_of_this_one() -> None:
    report = without_data()
    assert report.synthesis is not None
    report.synthesis.source = "cached:elsewhere"
    for text in (terminal(report), page_text(report), plain_markdown(report)):
        assert "were made from the given model in an earlier run (fastdfkd)" in text
        assert "by fastdfkd, in an earlier run" in text
        assert "compress pool" not in text
    assert "compress pool DIR" in page_text(without_data())


@pytest.mark.parametrize(("method", "words"), [("noise", "are noise."), ("images", "are those of images:photos.")])
def test_images_that_were_not_made_from_the_model_are_not_said_to_be(method: str, words: str) -> None:
    report = without_data()
    assert report.synthesis is not None
    report.synthesis.method = method
    if method == "images":
        report.synthesis.source, report.synthesis.kind = "images:photos", "images of another kind"
    text = terminal(report)
    assert f"the 2048 images that the stages worked on {words}" in text
    assert ("agreement with the given model on images of another kind" in text) == (method == "images")


def test_the_page_is_whole_and_harmless_with_its_contact_sheet() -> None:
    text = html(without_data())
    page = Page(text)
    assert page.open == []
    assert [section["id"] for section in page.all("section")] == [key for key, _ in contents(without_data())]
    pictures = page.all("img")
    assert len(pictures) == sum(count > 0 for count in COUNTS)
    for picture in pictures:
        source = picture["src"] or ""
        assert source.startswith("data:image/png;base64,")
        assert base64.b64decode(source.partition(",")[2])[1:4] == b"PNG"
        assert "the given model takes for" in (picture["alt"] or "")
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {link["href"] for link in page.all("a") if link.get("href")} <= {f"#{one}" for one in ids}
    found = re.search(r'id="report">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    assert Report.model_validate(json.loads(found[1])) == without_data()


@RENDERINGS
def test_what_controls_reach_stands_beside_the_made_images(rendering: Any) -> None:
    report = without_data(evaluated_on=REAL)
    assert report.synthesis is not None
    sources = (("generated", 97.6), ("noise", 11.3), ("images:photos", 94.2))
    assert "controls" not in rendering(report)
    report.synthesis.controls = [
        SynthesisControl(source=source, value=value, n=449, ci95=(value - 1, value + 1), seconds=60.0)
        for source, value in sources
    ]
    text = rendering(report)
    for source, value in sources:
        assert source in text
        assert f"{value:.1f}" in text


def test_every_class_has_its_count_share_and_confidence() -> None:
    text = html(without_data())
    rows = re.findall(
        r'<tr><th scope="row">(\d)</th><td.*?</tr>', text[text.index('id="sheet-') : text.index('id="attempts-')]
    )
    assert rows == [str(digit) for digit in range(10)]
    assert "| 9 | 294 | 14.4 % | 99.8 % |" in markdown(without_data())
    assert "| 2 | 0 | 0.0 % | no image |" in markdown(without_data())


def test_the_attempt_that_was_kept_is_marked() -> None:
    text = html(without_data())
    assert '<tr class="chosen"><th scope="row">1</th>' in text[text.index("Attempts, chosen by") :]


def test_the_starts_that_a_student_was_tried_with_are_shown_and_the_one_that_went_on() -> None:
    report = without_data()
    assert "Starts of the images made" not in html(report)
    starts = [
        {"seed": 0, "score": 0.712, "disagreement": 0.3141, "collapsed": None, "kept": False},
        {"seed": 5, "score": None, "disagreement": None, "collapsed": "not finite", "kept": False},
        {"seed": 6, "score": 0.803, "disagreement": 0.21, "collapsed": None, "kept": True},
    ]
    stage = next(one for one in report.stages if one.name == "distill")
    report.stages[report.stages.index(stage)] = stage.model_copy(
        update={"metrics": {**stage.metrics, "starts": starts}}
    )
    text = html(report)
    rows = text[text.index("Starts of the images made in distill") :]
    rows = rows[: rows.index("</table>")]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", rows) == [
        *("0.712", "31.4 %", "no", ""),
        *("", "", "not finite", ""),
        *("0.803", "21.0 %", "no", "went on"),
    ]
    assert '<tr class="chosen"><th scope="row">3</th>' in rows
    assert "disagreement 0.21" not in text  # not a second time among what the stage found


def test_hostile_words_about_images_stay_text() -> None:
    report = without_data()
    assert report.synthesis is not None
    evil = "</script><img src=x onerror=y()>\"'"
    report.synthesis = report.synthesis.model_copy(
        update={"method": evil, "reason": evil, "collapsed": evil, "kind": evil, "source": evil}
    )
    report.synthesis.sheet[0].png = '" onerror="y()'
    page = Page(html(report))
    assert page.all("script") == [{"type": "application/json", "id": "report"}]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<img" not in markdown(report)


def test_the_report_keeps_the_schema_and_comes_back(tmp_path: Path) -> None:
    render.write(without_data(), tmp_path)
    values = json.loads((tmp_path / "report.json").read_text())
    jsonschema.Draft202012Validator(render.json_schema()).validate(values)
    assert render.read(tmp_path) == without_data()


@pytest.mark.parametrize("rendering", ["report.json", "report.md", "report.html"])
def test_a_run_with_data_has_no_word_of_it(tmp_path: Path, rendering: str) -> None:
    render.write(honest_report(), tmp_path)
    text = (tmp_path / rendering).read_text()
    assert "synthesis" not in text
    assert "given model" not in text


def test_runs_on_other_images_are_not_compared_but_where_real_data_judged() -> None:
    one, other = without_data(), without_data()
    assert other.synthesis is not None
    other.synthesis.pool = "b" * 64
    assert any("stood in for test data" in text for text in differences({"a": one, "b": other})["b"])
    real, again = without_data(evaluated_on=REAL), without_data(evaluated_on=REAL)
    assert again.synthesis is not None
    again.synthesis.pool = "b" * 64
    assert differences({"a": real, "b": again})["b"] == []


def test_agreement_is_verified_as_a_share() -> None:
    report = honest_report()
    for variant in report.variants:
        assert variant.accuracy is not None
        variant.accuracy.metric = AGREEMENT
    assert all(check.ok for check in check_figures(report))
    report.variants[0].accuracy.value += 0.01  # type: ignore[union-attr]
    assert any("is no whole number of 449 images" in check.text for check in check_figures(report))


PIXELS = Preprocessing(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))


def made(folder: Path, *, evaluated_on: str | None = None, is_kept: bool = True) -> Data:
    """Data of a pool of 40 images, of which the class is their number modulo 4."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(40, 1, 8, 8, generator=generator), torch.arange(40) % 4
    if is_kept:
        pool = Pool(folder, shape=(1, 8, 8), teacher="f" * 64)
        pool.add(images, labels, confidence=torch.linspace(0.5, 1, 40))
    split = in_memory(images, labels)
    return Data(
        train=split.subset(torch.arange(20)),
        val=split.subset(torch.arange(20, 30)),
        test=split.subset(torch.arange(30, 40)),
        classes=tuple("abcd"),
        preprocessing=PIXELS,
        fingerprint="made",
        notes=(),
        synthetic=Synthetic(
            source="generated" if is_kept else "images:photos",
            method="dafl",
            reason="it was asked for",
            teacher="f" * 64,
            pool=folder,
            score=score(images, 9.0 * torch.nn.functional.one_hot(labels, 4)),
            seconds=2.0,
            restarts=(Restart(seed=3, score=0.5),),
            evaluated_on=evaluated_on,
        ),
    )


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_facts_of_the_images_reach_the_report(tmp_path: Path, is_kept: bool) -> None:
    facts = synthesis_of(made(tmp_path / "pool", is_kept=is_kept))
    assert facts is not None
    assert (facts.images, facts.class_counts) == (40, [10, 10, 10, 10])
    assert facts.kind == ("images that were made" if is_kept else "images of another kind")
    assert (facts.pool is not None) == is_kept
    assert [strip.label for strip in facts.sheet] == [0, 1, 2, 3]
    assert all(strip.png and base64.b64decode(strip.png).startswith(b"\x89PNG") for strip in facts.sheet)
    assert facts.restarts[0].model_dump() == {"seed": 3, "score": 0.5, "collapsed": None}


def test_real_data_that_judge_give_accuracy_its_name_back(tmp_path: Path) -> None:
    without, real = made(tmp_path), made(tmp_path / "other", evaluated_on=REAL)
    assert agreement_of(without) == LABEL
    assert agreement_of(real) is None
    variant = honest_report().variants[1]
    for data, metric in ((without, AGREEMENT), (real, "accuracy")):
        called = judged_by(agreement_of(data), variant)
        assert called.accuracy is not None
        assert called.accuracy.metric == metric
    assert variant.accuracy is not None
    assert variant.accuracy.metric == "accuracy"


def test_a_run_with_data_is_left_as_it_is(tmp_path: Path) -> None:
    with_data = Data(**{**vars(made(tmp_path)), "synthetic": None})
    stage = StageFacts(
        name="distill", settings={}, seconds=1.0, reused=False, skipped=None, curves={},
        metrics={"validation_accuracy": 97.0},
    )  # fmt: skip
    assert renamed(stage, with_data) is stage
    assert renamed(stage, made(tmp_path)).metrics == {"validation_agreement": 97.0}
    assert synthesis_of(with_data) is None
    assert agreement_of(with_data) is None
