"""What each variant changed against the one before it, drawn as a waterfall."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import words
from .canvas import COLOURS, axes, svg
from .elements import Markup
from .rows import here
from .schema import Interval, Report, Where


class Step(NamedTuple):
    """One row."""

    name: str
    value: float
    ci95: Interval | None


@dataclass(frozen=True)
class Waterfall:
    """One drawing. A figure of which less is better starts at zero; accuracy shows only its changes."""

    title: str
    steps: Sequence[Step]
    write: Callable[[float], str] = field(kw_only=True)
    more_is_better: bool = field(default=False, kw_only=True)

    @property
    def from_zero(self) -> bool:
        return not self.more_is_better


def waterfalls(report: Report, where: Where) -> list[tuple[str, Markup]]:
    """What each stage's variant changed against the one before it in latency, size and accuracy, with titles.

    Other precisions of a variant are no stage of their own, and no bar.
    """
    latency: list[Step] = []
    accuracy: list[Step] = []
    line = [variant for variant in report.variants if variant.twin_of is None]
    for variant in line:
        if timed := here(variant.latency_ms, where):
            latency.append(Step(variant.name, timed.median, timed.ci95))
        if judged := here(variant.accuracy, where):
            accuracy.append(Step(variant.name, judged.value, judged.ci95))
    unit, unit_bytes = ("MiB", words.MIB) if report.variants[0].size_bytes >= words.MIB else ("KiB", words.KIB)
    size = [Step(variant.name, variant.size_bytes / unit_bytes, None) for variant in line]
    drawings = (
        Waterfall("Median latency, ms", latency, write=words.number),
        Waterfall(f"File size, {unit}", size, write=lambda value: words.size(value * unit_bytes)),
        Waterfall(
            f"{words.metric(report, title=True)}, %",
            accuracy,
            write=lambda value: words.number(value, 1),
            more_is_better=True,
        ),
    )
    return [(one.title, _draw(one)) for one in drawings if len(one.steps) > 1]


def _draw(one: Waterfall) -> Markup:
    """Rows from top to bottom; each bar goes from the value before to the value now."""
    steps = one.steps
    drawing = axes(300, 40 + 34 * len(steps), left=70, right=60, top=6, bottom=34)
    drawing.grid(visible=True, axis="x")
    before = 0.0 if one.from_zero else steps[0].value
    for row, step in enumerate(steps):
        colour = "muted" if row == 0 else "good" if (step.value >= before) == one.more_is_better else "bad"
        drawing.barh(row, step.value - before, left=before, height=0.5, color=COLOURS[colour], alpha=0.85)
        if step.ci95 is not None:
            drawing.plot(step.ci95, (row, row), color=COLOURS["ink"], linewidth=1.1)
        ends = (row - 0.33, row + (1 if row < len(steps) - 1 else 0.33))
        drawing.plot((step.value, step.value), ends, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (2, 2)))
        drawing.plot((step.value, step.value), (row - 0.33, row + 0.33), color=COLOURS["ink"], linewidth=1.8)
        drawing.text(
            1.04,
            row,
            one.write(step.value),
            transform=drawing.get_yaxis_transform(),
            va="center",
            fontsize=12,
        )
        before = step.value
    drawing.set_yticks(range(len(steps)), [_short(step.name) for step in steps])
    drawing.tick_params(axis="y", labelcolor=COLOURS["ink"])
    drawing.set_ylim(len(steps) - 0.5, -0.5)
    if one.from_zero:
        drawing.set_xlim(0, 1.05 * max(step.ci95[1] if step.ci95 else step.value for step in steps))
    drawing.locator_params(axis="x", nbins=4)
    said = ", then ".join(f"{step.name} {one.write(step.value)}" for step in steps)
    return svg(drawing, key=f"waterfall-{one.title}", label=f"{one.title} by stage: {said}.")


def _short(name: str) -> str:
    return name if len(name) <= 13 else f"{name[:12]}…"
