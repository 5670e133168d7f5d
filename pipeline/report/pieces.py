"""What several sections of the page share: a variant's name, the colours, where figures come from."""

from . import words
from .canvas import series_name
from .elements import Markup, element, join
from .schema import Report, Where


def name(index: int, text: str, *, is_chosen: bool) -> Markup:
    """The name with its colour; the chosen one says so in words."""
    dot = element("span", class_=f"dot {series_name(index)}", aria_hidden="true")
    return join(dot, text, element("span", "chosen", class_="tag") if is_chosen else "")


def legend(report: Report) -> Markup:
    names = (
        name(index, one.name, is_chosen=one.name == report.chosen.name) for index, one in enumerate(report.variants)
    )
    return element("ul", *(element("li", name) for name in names), class_="legend", aria_label="Colours")


def place(report: Report, where: Where, *, is_first: bool = False) -> Markup:
    """Where the figures under it come from; loud unless they are the device's own."""
    if where == "device":
        return Markup("")
    if not is_first:
        return element("p", element("span", words.ground(where, report), class_=f"place {where}"))
    itself = f" On the {words.board(report)} itself: {words.NOT_MEASURED}.{words.way_there(report)}"
    return element("p", element("strong", f"{words.ground(where, report)}."), itself, class_="stand-in")


def missing(what: str) -> Markup:
    return element("p", f"{what}: {words.NOT_MEASURED}.", class_="missing")
