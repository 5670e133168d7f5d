"""The report as one page: readable offline, on paper, in light and dark, without a script."""

from importlib import resources
from string import Template

from . import (
    canvas,
    details,
    estimated,
    evidence,
    layers,
    parity,
    plots,
    running,
    sections,
    shaping,
    synthesis,
    tradeoff,
    waterfall,
    words,
)
from .elements import Markup, element, join
from .rows import main_place
from .schema import Report

SYNTHESIS = ("synthesis", "Images without data")  # before the data, where images stood in for them
LONG = 200  # letters of a verdict: beyond it they are smaller, for it is read and not looked at
CONTENTS = (
    ("figures", "Key figures"),
    ("budget", "Budget"),
    ("variants", "Variants"),
    ("caveats", "Caveats"),
    ("tradeoff", "Accuracy against latency"),
    ("stages-effect", "Stage by stage"),
    ("latency", "Latency"),
    ("memory", "Memory"),
    ("running", "Throughput, start and energy"),
    ("sustained", "Sustained run"),
    ("layers", "Time by layer"),
    ("parity", "Parity"),
    ("training", "Training"),
    ("stages", "Stages"),
    ("data", "Data"),
    ("machine", "Machine"),
    ("recipe", "Recipe"),
    ("raw", "Raw samples"),
)


def contents(report: Report) -> list[tuple[str, str]]:
    """The sections that this report has, with their titles."""
    titles = dict(CONTENTS) | {"tradeoff": f"{words.metric(report, title=True)} against latency"}
    found = list(titles.items())
    if report.synthesis is not None:
        found.insert(list(titles).index("data"), SYNTHESIS)
    if estimated.shown(report):
        found.insert(list(titles).index("caveats"), ("estimates", estimated.TITLE))
    if shaping.found_in(report) is not None:
        found.insert(list(titles).index("stages"), shaping.TITLE)
    return found


def html(report: Report) -> str:
    """The whole page; every string of the report is escaped."""
    folder = resources.files(__package__)
    with canvas.style():
        parts = _sections(report)
    page = Template((folder / "page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=join(f"{report.chosen.name} for {words.board(report)}"),
        style=(folder / "report.css").read_text(encoding="utf-8"),
        contents=join(*(element("li", element("a", title, href=f"#{key}")) for key, title in contents(report))),
        header=_header(report),
        sections=join(*parts),
        data=_safe_json(report),
    )


def _sections(report: Report) -> list[Markup]:
    where = main_place(report)
    return [
        sections.key_figures(report, where),
        sections.budget(report),
        sections.variants(report),
        *([estimated.section_of(report)] if estimated.shown(report) else []),
        sections.caveats(report),
        evidence.tradeoff(report, where, drawing=tradeoff.tradeoff(report, where)),
        evidence.stage_by_stage(report, where, drawings=waterfall.waterfalls(report, where)),
        evidence.latency(report, where, drawings=(plots.distributions(report, where), plots.steadiness(report, where))),
        evidence.memory(report, where, drawing=plots.memory(report, where)),
        running.section_of(report, where),
        running.sustained(report, where),
        layers.section_of(report, where),
        parity.section_of(report),
        details.training(report, draw=plots.curve),
        *([shaping.section_of(report)] if shaping.found_in(report) is not None else []),
        details.stages(report),
        *([synthesis.section_of(report)] if report.synthesis is not None else []),
        details.data(report),
        details.machine(report),
        details.recipe(report),
        details.raw(),
    ]


def _header(report: Report) -> Markup:
    where = main_place(report)
    kind = {True: "met", False: "missed", None: "unknown"}[report.verdict.met]
    about = element(
        "p",
        element("span", f"Budget: {words.state(report.verdict.met)}", class_=f"state {kind}"),
        element("span", words.ground(where, report), class_=f"place {where}"),
        element("span", report.run.started.replace("T", " ").replace("Z", " UTC")),
        class_="about",
    )
    name, said = str(report.profile.get("name", "")), report.verdict.sentence
    return join(
        element("p", f"Compression report · {name} · {words.board(report)}", class_="kicker"),
        element("h1", said, class_="long" if len(said) > LONG else "short"),
        element("p", element("strong", report.chosen.name), f" was chosen: {report.chosen.why}", class_="why"),
        about,
        synthesis.banner(report),
    )


def _safe_json(report: Report) -> str:
    """The report for a script element, which nothing in it can end: in JSON \\u003c is the same."""
    text = report.as_json()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
