"""What it takes to run each variant: throughput, start, energy; and what happens when it runs for long."""

from typing import TYPE_CHECKING

from . import words
from .canvas import COLOURS, axes, series, svg
from .elements import Markup, element, figure, section, table
from .pieces import legend, name, place
from .schema import Report, Series, Sustained, Variant, Where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 480, 300
HEAD = ("Variant", "Inferences per second", "Load, ms", "First inference, ms", "Energy, mJ")


def section_of(report: Report, where: Where) -> Markup:
    """Throughput, cold start and energy of each variant."""
    lines = [
        (name(index, variant.name, is_chosen=variant.name == report.chosen.name), *cells(variant, where))
        for index, variant in enumerate(report.variants)
    ]
    body = table("running-figures", "What one inference takes besides time", HEAD, lines)
    note = (
        "One caller that waits for each answer, pinned as the latency is. Load and first inference were timed once, "
        "in a fresh process, with the files in the system's cache. Energy is that of one inference, with what the "
        "machine takes at rest subtracted."
    )
    missing = [element("p", f"{what[0].upper()}{what[1:]}: {words.NOT_MEASURED}, {why}.", class_="missing")
               for what, why in report.not_measured.items()]  # fmt: skip
    title = "Throughput, start and energy"
    return section("running", title, place(report, where), body, *missing, element("p", note, class_="note"))


def cells(variant: Variant, where: Where) -> tuple[str, str, str, str]:
    """The figures of one variant in the order of HEAD, its name left out."""
    found = [one for one in variant.throughput if one.where == where]
    several = len(found) > 1
    throughput = ", ".join(
        f"{one.per_second:.0f}" + (f" (batch {one.batch})" if several or one.batch > 1 else "") for one in found
    )
    start = variant.cold_start if variant.cold_start and variant.cold_start.where == where else None
    energy = variant.energy if variant.energy and variant.energy.where == where else None
    missing = words.NOT_MEASURED
    return (
        throughput or missing,
        words.number(start.load_ms) if start else missing,
        words.number(start.first_ms) if start else missing,
        words.number(energy.per_inference_mj) if energy else missing,
    )


def sustained(report: Report, where: Where) -> Markup:
    """Latency over time beside the temperature, where a sustained run was asked for."""
    title, found = "Sustained run", report.sustained
    if found is None or found.where != where:
        text = "Not asked for. `--set profile.sustained_seconds=600` shows what ten minutes of heat do."
        return section("sustained", title, element("p", text, class_="missing"))
    drawings = [figure(_latencies(report, found), "Median of neighbouring rounds against the start.", title="Latency")]
    for known, label, unit in (
        (found.temperature_c, "Temperature of the warmest sensor", "°C"),
        (found.frequency_mhz, "Clock of the slowest CPU that was pinned", "MHz"),
    ):
        if known is not None:
            drawings.append(figure(_series(known, label, unit), "", title=label))
    head = ("Variant", "At the start, ms", "At the end, ms", "Times slower")
    lines = [
        (name(index, variant.name, is_chosen=variant.name == report.chosen.name), *_ends(found, variant.name))
        for index, variant in enumerate(report.variants)
        if variant.name in found.engines
    ]
    return section(
        "sustained",
        title,
        place(report, where),
        element("p", found.sentence),
        legend(report),
        element("div", *drawings, class_="grid two"),
        table("sustained-figures", "Median of the first and of the last tenth of the rounds", head, lines),
        *([] if found.temperature_c else [element("p", "Temperature: not measured, there is no sensor.")]),
    )


def _ends(found: Sustained, variant: str) -> tuple[str, str, str]:
    one = found.engines[variant]
    value, low, high = one.slowdown
    return words.number(one.start_ms), words.number(one.end_ms), words.with_interval(value, (low, high))


def _latencies(report: Report, found: Sustained) -> Markup:
    drawing = _over_time("latency against the start, %")
    for index, variant in enumerate(report.variants):
        one = found.engines.get(variant.name)
        if one is not None:
            relative = [100 * (value / one.start_ms - 1) for value in one.median_ms]
            weight = 2.4 if variant.name == report.chosen.name else 1.3
            drawing.plot(one.at_s, relative, color=series(index), linewidth=weight)
    return svg(drawing, key="sustained", label=f"Latency over time. {found.sentence}")


def _series(known: Series, label: str, unit: str) -> Markup:
    drawing = _over_time(unit)
    drawing.plot(known.at_s, known.values, color=COLOURS["accent"])
    said = f"{label}: from {words.number(known.values[0])} to {words.number(known.values[-1])} {unit}."
    return svg(drawing, key=f"sustained-{unit}", label=said)


def _over_time(label: str) -> "Axes":
    drawing = axes(WIDTH, HEIGHT)
    drawing.grid(visible=True, axis="y")
    drawing.set_xlabel("seconds")
    drawing.set_ylabel(label)
    return drawing
