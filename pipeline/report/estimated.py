"""What a board would take, estimated: under a heading of its own, in every rendering."""

from __future__ import annotations

from . import words
from .elements import Markup, element, section, table
from .rows import places
from .schema import Estimated, Report

TITLE = "Estimated, not measured"
HEAD = ("Variant", "Precision there", "Estimated median, ms", "90 % interval, ms")


def shown(report: Report) -> list[Estimated]:
    """Nothing, once there are figures of the board itself."""
    return [] if "device" in places(report) else report.estimates


def sentence(report: Report) -> str:
    """What the figures are, and what they are not."""
    bases = " and ".join(dict.fromkeys(one.basis for one in report.estimates))
    return (
        f"Nothing was measured on the {words.board(report)}. These figures come from {bases}; nine in ten published "
        "latencies of networks that the calibration had not seen lie in such an interval. No limit of the budget is "
        "judged by them."
    )


def cells(one: Estimated) -> tuple[str, str, str, str]:
    low, high = (words.number(end) for end in one.interval)
    return one.variant, one.precision, f"about {words.number(one.ms)}", f"{low} to {high}"


def lines(report: Report) -> list[str]:
    """For a terminal."""
    found = [f"{TITLE} ({words.board(report)})"] if shown(report) else []
    for one in shown(report):
        name, precision, about, interval = cells(one)
        found.append(f"  {name} in {precision}: {about} ms ({interval} ms)")
    return [*found, f"  {sentence(report)}"] if found else []


def section_of(report: Report) -> Markup:
    body = table("estimates", TITLE, HEAD, [cells(one) for one in report.estimates], words=2)
    return section("estimates", TITLE, body, element("p", sentence(report), class_="note"))
