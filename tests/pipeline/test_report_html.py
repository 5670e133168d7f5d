"""The page is complete, harmless and honest."""

import json
import re
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest
from report_sample import sample_report

from edgepress.pipeline.report.elements import Markup, element, facts, plain, stacked, table
from edgepress.pipeline.report.html import CONTENTS, html
from edgepress.pipeline.report.schema import Report

VOID = {"meta", "link", "br", "hr", "img", "input"}
EVIL = "</script><script>alert('x')</script><b onmouseover=\"y()\">& $x$ 'n"


class Page(HTMLParser):
    """Everything that the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def text() -> str:
    return html(sample_report())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def without_figures() -> Report:
    report = sample_report()
    missing = dict.fromkeys(
        (
            "accuracy",
            "latency_ms",
            "all_cores_ms",
            "speedup",
            "memory_mb",
            "parity",
            "macs",
            "torch_accuracy",
            "int8",
        )
    )
    variants = [variant.model_copy(update=missing) for variant in report.variants]
    return report.model_copy(update={"variants": variants, "data": None, "stages": [], "budget": {}, "caveats": []})


def test_every_element_that_opens_also_closes(page: Page) -> None:
    assert page.open == []


def test_the_first_heading_is_the_verdict(text: str) -> None:
    first = re.search(r"<h(\d)[^>]*>(.*?)</h\1>", text)
    assert first is not None
    assert (first[1], first[2]) == ("1", sample_report().verdict.sentence)


def test_headings_descend_one_level_at_a_time(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_entry_of_the_contents_leads_to_a_titled_section(page: Page) -> None:
    sections = {section["id"]: section for section in page.all("section")}
    assert [key for key, _ in CONTENTS] == list(sections)
    ids = {attributes.get("id") for _, attributes in page.tags}
    for section in sections.values():
        assert section["aria-labelledby"] in ids


def test_no_id_is_given_twice(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_reference_inside_the_page_has_its_target(text: str, page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.tags}
    body = text[: text.index('<script type="application/json"')]
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', body))
    assert used
    assert {first or second for first, second in used} <= ids


def test_nothing_is_loaded_from_anywhere(text: str, page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_there_is_no_script_to_run(page: Page) -> None:
    assert page.all("script") == [{"type": "application/json", "id": "report"}]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_carries_the_whole_report(text: str) -> None:
    found = re.search(r'id="report">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    assert Report.model_validate(json.loads(found[1])) == sample_report()


def test_the_python_lines_on_the_page_do_what_they_say(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code = Page(text)
    lines = "".join(code.text)
    start = lines.index("import json, re, pathlib")
    source = lines[start : lines.index("# milliseconds")].strip()
    *statements, last = source.splitlines()
    names: dict[str, object] = {}
    exec("\n".join(statements), names)
    assert eval(last, names) == sample_report().variants[0].latency_ms.samples


def test_hostile_strings_stay_text() -> None:
    values = _replaced(sample_report().model_dump(), EVIL)
    assert isinstance(values, dict)
    values["run"]["machine"][EVIL] = values["stages"][0]["settings"][EVIL] = 1
    values["stages"][0]["curves"][EVIL] = [1.0, 2.0]
    values["variants"][0]["memory_mb"]["phases"][EVIL] = 1.0
    values["budget"][EVIL] = values["budget"]["size_mb"]
    text = html(Report.model_validate(values))
    page = Page(text)
    assert page.all("script") == [{"type": "application/json", "id": "report"}]
    assert not page.all("b")
    assert EVIL in "".join(page.text)
    found = re.search(r'id="report">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    assert json.loads(found[1])["verdict"]["sentence"] == EVIL


def _replaced(value: object, evil: str) -> object:
    """Every free text of the report, as an attacker who names files and variants would have it."""
    fixed = {"schema_version", "where", "met", "name"}
    if isinstance(value, dict):
        return {key: inner if key in fixed else _replaced(inner, evil) for key, inner in value.items()} | (
            {"name": evil} if "name" in value else {}
        )
    if isinstance(value, list):
        return [_replaced(inner, evil) for inner in value]
    return evil if isinstance(value, str) else value


def test_missing_figures_are_not_measured_and_every_section_still_stands() -> None:
    text = html(without_figures())
    page = Page(text)
    assert [section["id"] for section in page.all("section")] == [key for key, _ in CONTENTS]
    assert page.all("svg") != []  # the sizes are known
    tiles = text[text.index('id="figures"') : text.index('id="budget"')]
    assert tiles.count("not measured") >= 5
    assert not re.search(r"\bNone\b(?! was set| ran)|\bnan\b", "".join(page.text))


def test_a_stand_in_never_speaks_for_the_device() -> None:
    text = html(sample_report(where="stand-in"))
    assert "Measured on this device" not in text
    variants = text[text.index('id="variants"') : text.index('id="caveats"')]
    assert ">Stand-in: measured on this machine, not on the NVIDIA Jetson Nano</h3>" in variants
    assert 'scope="colgroup" colspan="1">On the NVIDIA Jetson Nano</th>' in variants
    rows = re.findall(r"<tr[^>]*><th scope=\"row\">.*?</tr>", variants[variants.index("<h3") :])
    assert len(rows) == 4
    assert all(re.search(r"</th><td class=\"number missing\">not measured</td>", row) for row in rows)


def test_figures_from_two_places_stand_in_two_tables() -> None:
    report = sample_report()
    one = sample_report(where="stand-in").variants[1]
    report.variants[1] = one
    text = html(report)
    first, second = text.index('id="variants-device"'), text.index('id="variants-stand-in"')
    device = re.findall(r"<tr[^>]*><th scope=\"row\">.*?</tr>", text[first:second])
    assert device[1].count("not measured") == 6  # parity is no timing
    assert device[0].count("not measured") == 0


def test_a_baseline_that_was_chosen_is_not_compared_with_itself() -> None:
    report = sample_report()
    report = report.model_copy(update={"chosen": report.chosen.model_copy(update={"name": "baseline"})})
    figures = html(report)
    figures = figures[figures.index('id="figures"') : figures.index('id="budget"')]
    assert figures.count("the baseline itself was chosen") == 2
    assert "faster than the baseline" not in figures


def test_every_table_has_a_caption_and_scopes(text: str, page: Page) -> None:
    tables = re.findall(r"<table>.*?</table>", text, re.DOTALL)
    assert len(tables) >= 6
    for one in tables:
        assert re.match(r'<table><caption id="[\w-]+">.', one)
    assert all("scope" in cell for cell in page.all("th"))
    regions = [box for box in page.all("div") if box.get("class") == "scroll"]
    assert len(regions) == len(tables)
    assert all(box["tabindex"] == "0" and box["role"] == "region" for box in regions)


def test_every_drawing_speaks(page: Page) -> None:
    drawings = page.all("svg")
    assert len(drawings) >= 10
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert len(drawing["aria-label"] or "") > 20


def _colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css))


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(scheme: str) -> None:
    css = (resources.files("edgepress") / "pipeline/report/report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = _colours(blocks[0]) | (_colours(blocks[1]) if scheme == "dark" else {})
    pairs = [(ink, back) for ink in ("ink", "muted") for back in ("paper", "card", "sunk", "good-back", "warn-back")]
    pairs += [
        ("accent", "paper"),
        ("good", "good-back"),
        ("bad", "bad-back"),
        ("warn", "warn-back"),
        ("warn", "paper"),
    ]
    pairs += [(name, "paper") for name in ("good", "bad", *(f"s{index}" for index in range(8)))]
    low = {pair: ratio for pair in pairs if (ratio := _contrast(colours[pair[0]], colours[pair[1]])) < 4.5}
    # the names beside the points have the colours of the points: they are text too
    assert low == {}


def test_an_element_escapes_its_text_and_its_attributes() -> None:
    made = element("p", "a < b", Markup("<i>c</i>"), title='"x"', hidden=True, class_=None)
    assert made == '<p title="&quot;x&quot;" hidden>a &lt; b<i>c</i></p>'


def test_a_figure_is_stacked_over_its_interval() -> None:
    assert stacked("0.412 (0.40–0.42)") == "0.412<small>(0.40–0.42)</small>"
    assert stacked("98.2 % ±0.6") == "98.2 %<small>±0.6</small>"
    assert stacked("71.4 MiB") == "71.4 MiB"


def test_any_value_of_a_document_can_be_said() -> None:
    value = {"a_b": [1, 2.0, None], "c": {}, "d": True, "e": []}
    assert plain(value) == "a b 1, 2, not known, c none, d yes, e none"
    assert "<dt>a b</dt><dd>1, 2, not known</dd>" in facts(value)


def test_a_marked_row_and_the_groups_reach_the_table() -> None:
    made = table("t", "c", ("n", "x"), [("a", "1"), ("b", "2")], groups=[("both", 1)], marked=1)
    assert '<tr class="chosen"><th scope="row">b</th>' in made
    assert '<th scope="colgroup" colspan="1">both</th>' in made


def test_how_much_a_loss_counted_stands_under_its_own_curve() -> None:
    values = sample_report().model_dump()
    values["stages"][0]["curves"] = {"kd": [2.0, 1.0], "share kd": [0.62, 0.4], "share of its own": [1.0, 1.0]}
    text = html(Report.model_validate(values))
    assert "62 % of the gradient at first, 40 % at the end" in text
    assert "share kd" not in text.partition("<script")[0]
    assert "share of its own" in text
