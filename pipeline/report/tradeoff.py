"""Accuracy against latency, with intervals, the variants that nothing beats, and the budget: drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import words
from .canvas import COLOURS, axes, series, svg
from .elements import Markup
from .plots import log_x
from .rows import here
from .schema import Interval, Report, Variant, Where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
Box = tuple[float, float, float, float]  # left, low, right, high, in pixels
LETTER, DOT = 7.6, 6.0  # pixels: the width of a letter, half the width of a point
CROWDED = 4.0  # times from the fastest to the slowest: beyond it a linear axis crowds the fast ones


def tradeoff(report: Report, where: Where) -> Markup | None:
    """Accuracy against median latency; None without a variant that has both."""
    points = [
        (index, variant, latency, accuracy)
        for index, variant in enumerate(report.variants)
        if (latency := here(variant.latency_ms, where)) and (accuracy := here(variant.accuracy, where))
    ]
    if not points:
        return None
    drawing = axes(580, 410, left=56)
    drawing.tick_params(labelsize=12.5)
    drawing.grid(visible=True)
    front = pareto([(latency.median, accuracy.value) for _, _, latency, accuracy in points])
    drawing.step(*zip(*front, strict=True), where="post", color=COLOURS["muted"], linestyle=(0, (1, 2.5)), zorder=1)
    for index, _, latency, accuracy in points:
        x, y = latency.median, accuracy.value
        drawing.errorbar(
            x,
            y,
            xerr=_sides(x, latency.ci95),
            yerr=_sides(y, accuracy.ci95),
            color=series(index),
            linewidth=1.4,
        )
        drawing.plot(x, y, "o", color=series(index), markersize=9, markeredgecolor=COLOURS["paper"], zorder=3)
    _, right = drawing.get_xlim()
    low, high = drawing.get_ylim()
    fastest, slowest = (pick(latency.median for *_, latency, _ in points) for pick in (min, max))
    if slowest > CROWDED * fastest > 0:
        log_x(drawing, low=0.8 * fastest, high=1.2 * slowest)
    else:
        drawing.set_xlim(0, right * 1.06)
    drawing.set_ylim(low, min(high, 100.0 + 0.04 * (100 - low)))
    _limits(drawing, report, where)
    _names(
        drawing,
        report,
        [(index, variant, latency.median, accuracy.value) for index, variant, latency, accuracy in points],
    )
    drawing.set_xlabel("median latency, ms", fontsize=12.5)
    drawing.set_ylabel(f"{words.metric(report)}, %", fontsize=12.5)
    said = "; ".join(
        f"{variant.name} {words.number(accuracy.value, 1)} % at {words.number(latency.median)} ms"
        for _, variant, latency, accuracy in points
    )
    return svg(drawing, key="tradeoff", label=f"{words.metric(report, title=True)} against median latency. {said}.")


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both (low latency, high accuracy), from the fastest on."""
    front: list[tuple[float, float]] = []
    for latency, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((latency, accuracy))
    return front


def _names(drawing: "Axes", report: Report, points: Sequence[tuple[int, Variant, float, float]]) -> None:
    """Each name beside its point, where it covers no other name and no point; else the legend alone tells it.

    The chosen variant is placed first, then those that a stage made, then their other precisions.
    """
    at = {index: drawing.transData.transform((x, y)) for index, _, x, y in points}
    taken = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in at.values()]
    frame = drawing.get_window_extent()
    for index, variant, *_ in sorted(points, key=lambda point: _rank(point[1], report)):
        x, y = at[index]
        width = LETTER * len(variant.name)
        for right, up in ((9, 7), (-9 - width, 7), (9, -19), (-9 - width, -19), (-width / 2, 14), (-width / 2, -26)):
            box = (x + right, y + up - 3, x + right + width, y + up + 13)
            inside = box[0] >= frame.x0 and box[2] <= frame.x1 and box[1] >= frame.y0 and box[3] <= frame.y1
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                drawing.annotate(
                    variant.name,
                    (x + right, y + up),
                    xycoords="figure pixels",
                    color=series(index),
                    fontweight="bold" if variant.name == report.chosen.name else "normal",
                    fontsize=13.5,
                )
                break


def _rank(variant: Variant, report: Report) -> int:
    return 0 if variant.name == report.chosen.name else 1 if variant.twin_of is None else 2


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _limits(drawing: "Axes", report: Report, where: Where) -> None:
    """The budget's limits as lines, as far as they have a place on these axes."""
    baseline = report.variants[0]
    latency, accuracy = here(baseline.latency_ms, where), here(baseline.accuracy, where)
    limit = {name: facts.limit for name, facts in report.budget.items()}
    across = [limit["latency_ms"]] if "latency_ms" in limit else []
    if "speedup" in limit and latency:
        across.append(latency.median / limit["speedup"])
    up = [limit["accuracy"]] if "accuracy" in limit else []
    if "accuracy_drop" in limit and accuracy:
        up.append(accuracy.value - limit["accuracy_drop"])
    line: dict[str, Any] = {
        "color": COLOURS["bad"],
        "linewidth": 1.1,
        "linestyle": (0, (5, 3)),
        "zorder": 1.5,
    }
    for at in across:
        drawing.axvline(at, **line)
        left, right = drawing.get_xlim()
        drawing.set_xlim(min(left, 0.95 * at), max(right, 1.05 * at))
        _say(drawing, "budget", (at, 0.02), xy="data-axes", rotation=90)
    for at in up:
        drawing.axhline(at, **line)
        low, high = drawing.get_ylim()
        drawing.set_ylim(min(low, at - 0.05 * (high - low)), high)
        _say(drawing, "budget", (0.995, at), xy="axes-data", rotation=0)


def _say(drawing: "Axes", text: str, at: tuple[float, float], *, xy: str, rotation: int) -> None:
    drawing.annotate(
        text,
        at,
        xycoords=drawing.get_xaxis_transform() if xy == "data-axes" else drawing.get_yaxis_transform(),
        xytext=(4, 0) if rotation else (0, 4),
        textcoords="offset points",
        ha="left" if rotation else "right",
        color=COLOURS["bad"],
        fontsize=11,
    )


def _sides(value: float, ci95: Interval) -> list[list[float]]:
    return [[max(0.0, value - ci95[0])], [max(0.0, ci95[1] - value)]]
