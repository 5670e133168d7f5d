"""Several runs on one page, in the manner of the report."""

from collections.abc import Sequence
from importlib import resources
from string import Template

from .elements import Markup, element, join, section, stacked, table
from .words import NOT_MEASURED


def page(head: Sequence[str], lines: Sequence[Sequence[str]], *, chosen: Sequence[bool], notes: Sequence[str]) -> str:
    """One table; every string is escaped. chosen: which lines stand out. notes: what is not comparable, and why."""
    folder = resources.files(__package__)
    titles = [title[0].upper() + title[1:] for title in head]
    shown = [
        (*(join(element("strong", cell)) if mark else cell for cell in line[:2]), *map(_figure, line[2:]))
        for line, mark in zip(lines, chosen, strict=True)
    ]
    body = table("runs", "The baseline and the chosen variant of each run", titles, shown, words=2)
    heading = "Runs under the same conditions" if not notes else "Runs that differ in their conditions"
    warned = element("ul", *(element("li", text) for text in notes), class_="caveats") if notes else Markup("")
    about = "Bold is what was chosen. Parentheses and ± hold 95 % intervals. Runs were timed apart, not in turn."
    parts = [section("runs", "Figures", body, element("p", about, class_="note"), warned)]
    return Template((folder / "page.html").read_text(encoding="utf-8")).substitute(
        title=heading,
        style=(folder / "report.css").read_text(encoding="utf-8"),
        contents=element("li", element("a", "Figures", href="#runs")),
        header=join(element("p", "Comparison of runs", class_="kicker"), element("h1", heading)),
        sections=join(*parts),
        data="{}",
    )


def _figure(text: str) -> str:
    return text if text == NOT_MEASURED else stacked(text)
