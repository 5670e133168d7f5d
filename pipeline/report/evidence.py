"""The page's middle sections: the drawings, each with the figures that it shows."""

from collections.abc import Sequence

from . import words
from .elements import Markup, element, figure, section, stacked, table
from .pieces import legend, missing, name, place
from .rows import here
from .schema import Latency, Report, Where


def tradeoff(report: Report, where: Where, *, drawing: Markup | None) -> Markup:
    title = f"{words.metric(report, title=True)} against latency"
    if drawing is None:
        return section("tradeoff", title, missing("No variant has both figures"))
    caption = (
        "Up and to the left is better. Bars are 95 % intervals on both axes. The dotted line joins the "
        "variants that no other beats in both figures; the dashed lines are the budget. Where points are too "
        "close, the colours name them."
    )
    return section("tradeoff", title, place(report, where), legend(report), figure(drawing, caption, class_="beside"))


def stage_by_stage(report: Report, where: Where, *, drawings: Sequence[tuple[str, Markup]]) -> Markup:
    if not drawings:
        return section("stages-effect", "Stage by stage", missing("There is nothing to compare the baseline with"))
    shown = [figure(drawing, "", title=title) for title, drawing in drawings]
    note = "Each bar goes from the variant above it to its own value: green for a gain, red for a cost."
    grid = element("div", *shown, class_="grid three")
    return section("stages-effect", "Stage by stage", place(report, where), grid, element("p", note, class_="note"))


def latency(report: Report, where: Where, *, drawings: tuple[Markup | None, Markup | None]) -> Markup:
    """Distributions, rounds, and the quantiles of every variant."""
    titles = (
        (
            "Distribution",
            "The share of inferences that took at most so long. A steep line is a steady variant.",
        ),
        ("Steadiness", "The median of each round. A slope is drift; a bump is a disturbance."),
    )
    shown = [
        figure(drawing, caption, title=title)
        for drawing, (title, caption) in zip(drawings, titles, strict=True)
        if drawing is not None
    ]
    if not shown:
        return section("latency", "Latency", missing("No variant was timed"))
    head = (
        "Variant",
        "Runtime",
        "Threads",
        "Samples",
        "Minimum",
        "Median",
        "Mean",
        "p90",
        "p99",
        "Median, all cores",
    )
    lines = [
        (
            name(index, variant.name, is_chosen=variant.name == report.chosen.name),
            *_quantiles(here(variant.latency_ms, where)),
            stacked(words.latency(here(variant.all_cores_ms, where))),
        )
        for index, variant in enumerate(report.variants)
    ]
    body = table("quantiles", "Milliseconds of one inference", head, lines, words=2)
    grid = element("div", *shown, class_="grid two")
    return section("latency", "Latency", place(report, where), legend(report), grid, body)


def memory(report: Report, where: Where, *, drawing: Markup | None) -> Markup:
    if drawing is None:
        return section("memory", "Memory", missing("Memory by phase"))
    caption = "Resident memory of a fresh process that only runs this model, after each phase."
    phases, lines = _phases(report, where)
    last = ("peak", "system's drop") if _shared_memory(report, where) else ("peak",)
    body = table("phases", "MiB after each phase, and at the peak", ("Variant", *phases, *last), lines)
    told = element("p", _arenas(report), class_="note")
    return section(
        "memory",
        "Memory",
        place(report, where),
        legend(report),
        figure(drawing, caption, class_="beside"),
        body,
        told,
    )


def _phases(report: Report, where: Where) -> tuple[list[str], list[list[str]]]:
    """The names of the phases, and for each variant its name, its memory after each, and its peak."""
    phases = list(dict.fromkeys(phase for one in report.variants if one.memory_mb for phase in one.memory_mb.phases))
    lines: list[list[str]] = []
    for index, variant in enumerate(report.variants):
        known = here(variant.memory_mb, where)
        found = [known.phases.get(phase) for phase in phases] if known else [None] * len(phases)
        cells = [words.NOT_MEASURED if value is None else words.number(value) for value in found]
        peak = words.number(known.peak_rss) if known else words.NOT_MEASURED
        line = [name(index, variant.name, is_chosen=variant.name == report.chosen.name), *cells, peak]
        if _shared_memory(report, where):
            drop = known.system_drop if known else None
            line.append(words.NOT_MEASURED if drop is None else words.number(drop))
        lines.append(line)
    return phases, lines


def _arenas(report: Report) -> str:
    """What the runtime's own allocator held, in a sentence."""
    known = [(one.name, one.layers.arena_mb) for one in report.variants if one.layers and one.layers.arena_mb]
    if not known:
        return "What the runtime's own allocator holds is part of these figures; the runtime does not tell it apart."
    listed = ", ".join(f"{name} {words.mib(held)}" for name, held in known)
    return f"Of these figures the runtime's own allocator (its arena) held at most: {listed}."


def _shared_memory(report: Report, where: Where) -> bool:
    """Was the drop of the system's memory measured, as it is where CPU and GPU share one?"""
    figures = [here(variant.memory_mb, where) for variant in report.variants]
    return any(figure is not None and figure.system_drop is not None for figure in figures)


def _quantiles(figure: Latency | None) -> tuple[str, ...]:
    if figure is None:
        return (words.NOT_MEASURED,) * 8
    count = sum(len(visit) for visit in figure.samples)
    values = (figure.minimum, figure.median, figure.mean, figure.p90, figure.p99)
    return (
        figure.runtime,
        str(figure.threads),
        f"{count} in {len(figure.samples)} rounds",
        *map(words.number, values),
    )
