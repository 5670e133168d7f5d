"""Pieces of HTML that cannot forget to escape."""

import re
from collections.abc import Mapping, Sequence
from html import escape

from .words import NOT_MEASURED


class Markup(str):
    """Text that is HTML already. Every other string is escaped on its way into an element."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | bool | None) -> Markup:
    """`element("p", "a < b", class_="note")`: an attribute that is None or False is left out."""
    written = "".join(
        f" {_attribute(key)}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def section(key: str, title: str, *children: str) -> Markup:
    heading = element("h2", title, id=f"{key}-title")
    return element("section", heading, *children, id=key, aria_labelledby=f"{key}-title")


def table(
    key: str,
    caption: str,
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    *,
    words: int = 1,
    groups: Sequence[tuple[str, int]] = (),
    marked: int | None = None,
) -> Markup:
    """A table whose first column names the rows.

    words: so many columns from the left hold words, the others figures. groups: headings over the columns
    after the first, each with how many it spans. marked: the index of the row that stands out.
    """
    rows = [
        element(
            "tr",
            *(_cell(cell, column=column, words=words) for column, cell in enumerate(line)),
            class_="chosen" if index == marked else None,
        )
        for index, line in enumerate(body)
    ]
    titles = (element("th", title, scope="col", class_=_kind(n, words)) for n, title in enumerate(head))
    over = (element("th", title, scope="colgroup", colspan=str(width)) for title, width in groups)
    top = element("tr", element("td"), *over, class_="groups") if groups else Markup("")
    inner = element(
        "table",
        element("caption", caption, id=f"{key}-caption"),
        element("thead", top, element("tr", *titles)),
        element("tbody", *rows),
    )
    # a table that is wider than the screen scrolls by itself, also from the keyboard
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_labelledby=f"{key}-caption")


def facts(values: Mapping[str, object]) -> Markup:
    """Keys and values of any depth as a list of definitions."""
    parts = [
        element("div", element("dt", key.replace("_", " ")), element("dd", plain(value)))
        for key, value in values.items()
    ]
    return element("dl", *parts, class_="facts")


def plain(value: object) -> str:
    """Any value of a JSON document in words."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {plain(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(inner) for inner in value) or "none"
    return str(value)


def image(png: str, *, alt: str, height: str) -> Markup:
    """png: base64. height: as the style sheet has it; few pixels are shown as squares."""
    style = f"height:{height};width:auto;display:block;image-rendering:pixelated"
    return Markup(element("img", src=f"data:image/png;base64,{png}", alt=alt, style=style).removesuffix("</img>"))


def details(summary: str, *children: str) -> Markup:
    return element("details", element("summary", summary), *children)


def figure(drawing: Markup, caption: str, *, title: str | None = None, class_: str | None = None) -> Markup:
    """title: above the drawing; caption: below it, or beside it where there is room."""
    heading = element("p", title, class_="title") if title else Markup("")
    about = element("figcaption", caption) if caption else Markup("")
    return element("figure", heading, drawing, about, class_=class_)


def stacked(text: str) -> Markup:
    """A figure over its interval: `0.412 (0.409–0.415)` as two lines."""
    value, *interval = re.split(r" (?=[(±])", text, maxsplit=1)
    return join(value, *(element("small", part) for part in interval))


def _cell(cell: str, *, column: int, words: int) -> Markup:
    if column == 0:
        return element("th", cell, scope="row")
    kinds = [
        _kind(column, words),
        "missing" if cell == NOT_MEASURED else None,
        "long" if len(cell) > 24 and not isinstance(cell, Markup) else None,
    ]
    return element("td", cell, class_=" ".join(filter(None, kinds)) or None)


def _kind(column: int, words: int) -> str | None:
    return "number" if column >= words else None


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")
