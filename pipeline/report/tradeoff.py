"""Accuracy against latency, with intervals, the variants that nothing beats, and the budget: drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import words
from .canvas import COLOURS, axes, series, svg
from .elements import Markup
from .rows import here
from .schema import Interval, Report, Variant, Where

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    drawing.set_xlim(0, right * 1.06)
    drawing.set_ylim(low, min(high, 100.0 + 0.04 * (100 - low)))
    _limits(drawing, report, where)
    _names(
        drawing,
        report,
        [(index, variant, latency.median, accuracy.value) for index, variant, latency, accuracy in points],
    )
    drawing.set_xlabel("median latency, ms", fontsize=12.5)
    drawing.set_ylabel("accuracy, %", fontsize=12.5)
    said = "; ".join(
        f"{variant.name} {words.number(accuracy.value, 1)} % at {words.number(latency.median)} ms"
        for _, variant, latency, accuracy in points
    )
    return svg(drawing, key="tradeoff", label=f"Accuracy against median latency. {said}.")


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both (low latency, high accuracy), from the fastest on."""
    front: list[tuple[float, float]] = []
    for latency, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((latency, accuracy))
    return front


def _names(drawing: "Axes", report: Report, points: Sequence[tuple[int, Variant, float, float]]) -> None:
    """Each name beside its point: to the right where it fits, else where there is more room."""
    _, edge = drawing.get_xlim()
    pixels = drawing.get_window_extent().width / edge
    for index, variant, x, y in points:
        room_right = min((other for *_, other, _ in points if other > x), default=edge) - x
        room_left = x - max((other for *_, other, _ in points if other < x), default=0.0)
        goes_left = room_right * pixels < 7 * len(variant.name) + 18 and room_left > room_right
        drawing.annotate(
            variant.name,
            (x, y),
            xytext=(-9 if goes_left else 9, 7),
            textcoords="offset points",
            ha="right" if goes_left else "left",
            color=series(index),
            fontweight="bold" if variant.name == report.chosen.name else "normal",
            fontsize=13.5,
        )


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
        drawing.set_xlim(0, max(drawing.get_xlim()[1], 1.05 * at))
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
