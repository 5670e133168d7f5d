"""How latencies are spread, how steady they were, what memory was taken, how training went: drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import words
from .canvas import COLOURS, axes, series, svg, ticks_of_log
from .elements import Markup
from .rows import here
from .schema import Latency, Report, Variant, Where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 480, 330
CURVE_POINTS = 200  # of a distribution: more than the pixels that show it


def distributions(report: Report, where: Where) -> Markup | None:
    """Share of the inferences that were at most so long, for each variant."""
    timed = _timed(report, where)
    if not timed:
        return None
    import numpy as np

    drawing = axes(WIDTH, HEIGHT)
    drawing.grid(visible=True, axis="y")
    shares = np.linspace(0, 1, CURVE_POINTS)
    for index, variant, latency in timed:
        samples = np.sort(np.concatenate([np.asarray(visit) for visit in latency.samples]))
        # by rank: interpolation would draw a latency that nobody saw
        found = samples[np.minimum((shares * len(samples)).astype(int), len(samples) - 1)]
        drawing.plot(found, 100 * shares, color=series(index), linewidth=_weight(variant, report))
    log_x(drawing, low=min(t.minimum for *_, t in timed), high=max(t.p99 for *_, t in timed))
    drawing.set_ylim(0, 101)
    drawing.set_xlabel("latency, ms")
    drawing.set_ylabel("share of inferences, %")
    said = "; ".join(
        f"{variant.name}: half within {words.number(known.median)} ms, 99 % within {words.number(known.p99)}"
        for _, variant, known in timed
    )
    return svg(drawing, key="distributions", label=f"Distribution of latencies. {said}.")


def steadiness(report: Report, where: Where) -> Markup | None:
    """The median of each round against the variant's own: drift and disturbances show as slopes and bumps."""
    timed = [one for one in _timed(report, where) if len(one[2].samples) > 1]
    if not timed:
        return None
    import numpy as np

    drawing = axes(WIDTH, HEIGHT)
    drawing.grid(visible=True, axis="y")
    worst = 0.0
    for index, variant, latency in timed:
        rounds = np.array([float(np.median(visit)) for visit in latency.samples if visit])
        relative = 100 * (rounds / latency.median - 1)
        worst = max(worst, float(np.abs(relative).max()))
        drawing.plot(
            np.arange(1, len(rounds) + 1),
            relative,
            color=series(index),
            linewidth=0.7 * _weight(variant, report),
        )
    edge = max(2.0, 1.15 * worst)
    drawing.set_ylim(-edge, edge)
    drawing.locator_params(axis="x", integer=True)
    drawing.set_xlabel("round")
    drawing.set_ylabel("against the run's median, %")
    return svg(
        drawing,
        key="steadiness",
        label=f"Median latency of each round: at most {words.number(worst, 1)} % from the variant's median.",
    )


def memory(report: Report, where: Where) -> Markup | None:
    """Resident memory after each phase of a process that only runs the model."""
    known = [
        (index, variant, figure)
        for index, variant in enumerate(report.variants)
        if (figure := here(variant.memory_mb, where)) and figure.phases
    ]
    if not known:
        return None
    phases = list(dict.fromkeys(phase for *_, figure in known for phase in figure.phases))
    drawing = axes(580, HEIGHT, left=56)
    drawing.grid(visible=True, axis="y")
    for index, variant, figure in known:
        at = [number for number, phase in enumerate(phases) if phase in figure.phases]
        values = [figure.phases[phases[number]] for number in at]
        drawing.plot(at, values, "o-", color=series(index), markersize=5, linewidth=_weight(variant, report))
    drawing.set_xticks(range(len(phases)), phases)
    drawing.set_xlim(-0.25, len(phases) - 0.75)
    drawing.set_ylim(0)
    drawing.set_ylabel("resident, MiB")
    said = "; ".join(f"{variant.name} peak {words.mib(figure.peak_rss)}" for _, variant, figure in known)
    return svg(drawing, key="memory", label=f"Resident memory by phase. {said}.")


def curve(values: Sequence[float | None], *, key: str, label: str) -> Markup:
    """One series of one training stage over its epochs."""
    known = [(epoch, value) for epoch, value in enumerate(values, start=1) if value is not None]
    drawing = axes(240, 150, left=38, right=10, bottom=26, top=10)
    drawing.grid(visible=True, axis="y")
    if known:
        epochs, found = zip(*known, strict=True)
        drawing.plot(epochs, found, color=COLOURS["accent"], linewidth=1.8)
        drawing.plot(epochs[-1], found[-1], "o", color=COLOURS["accent"], markersize=5, clip_on=False)
    drawing.locator_params(axis="y", nbins=4)
    drawing.set_xlim(1, max(2, len(values)))
    _whole_numbers(drawing, len(values))
    return svg(drawing, key=key, label=label)


def _weight(variant: Variant, report: Report) -> float:
    """Of a line: the chosen variant's stands out without its colour."""
    return 2.8 if variant.name == report.chosen.name else 1.5


def _timed(report: Report, where: Where) -> list[tuple[int, Variant, Latency]]:
    return [
        (index, variant, latency)
        for index, variant in enumerate(report.variants)
        if (latency := here(variant.latency_ms, where)) and any(latency.samples)
    ]


def log_x(drawing: "Axes", *, low: float, high: float) -> None:
    """A logarithmic axis from a little below `low` to a little above `high`, where there is room for its labels."""
    drawing.set_xlim(0.95 * low, 1.08 * high)
    ticks = ticks_of_log(0.95 * low, 1.08 * high)
    if low > 0 and len(ticks) > 2:
        drawing.set_xscale("log")
        drawing.set_xlim(0.95 * low, 1.08 * high)
        drawing.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        drawing.set_xticks([], minor=True)


def _whole_numbers(drawing: "Axes", epochs: int) -> None:
    step = max(1, -(-epochs // 5))
    drawing.set_xticks(range(step, max(2, epochs) + 1, step))
