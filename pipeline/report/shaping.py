"""How the network was pruned to the budget: what was aimed at, every candidate that was measured, and what stayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import words
from .canvas import COLOURS, axes, svg
from .elements import Markup, details, element, facts, figure, section, table
from .schema import Report

KEY = "to_budget"  # of the stage's metrics
TITLE = ("shaping", "Pruning to the budget")
HEAD = ("Trial", "Importance kept", "Expected", "Measured", "95 %", "Size", "Goals")
MOST_GROUPS = 200  # whose widths are listed


def found_in(report: Report) -> Mapping[str, Any] | None:
    """What the prune stage says of its search; None where it did not work towards a budget."""
    return next((stage.metrics[KEY] for stage in report.stages if KEY in stage.metrics), None)


def sentence(found: Mapping[str, Any]) -> str:
    """What was aimed at and what was reached, before the recovery and the final measurement."""
    goals = ", ".join(f"{name} {limit:g}" for name, limit in found["goals"].items())
    reached = ", ".join(f"{one['goal']} {words.number(one['value'])}" for one in found["reached"])
    trials = len(found.get("trials", ()))
    how = f"{trials} candidate{'' if trials == 1 else 's'}" if trials else "the unpruned network"
    return f"Aimed at {goals} in {found['form']}, {found['time_is']}; {how} came to {reached}."


def shown(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line for each candidate."""
    lines: list[tuple[str, ...]] = []
    for number, trial in enumerate(found.get("trials", ()), 1):
        seen = trial.get("seen")
        kept, expected = f"{100 * trial['importance_kept']:.1f} %", f"{100 * trial['predicted']:.1f} %"
        chosen = "chosen, " if trial["widths"] == found.get("widths") else ""
        state = chosen + ("met" if trial["met"] else "missed")
        if seen is None:  # judged by accuracy after a short recovery
            lines.append((str(number), kept, expected, "not timed", "", "", f"{state}, drop {trial['drop']:.2f}"))
            continue
        interval = f"{100 * seen['low']:.1f} to {100 * seen['high']:.1f} %"
        size = f"{seen['size_bytes'] / 2**10:.0f} KiB"
        lines.append((str(number), kept, expected, f"{100 * seen['share']:.1f} %", interval, size, state))
    return lines


def section_of(report: Report) -> Markup:
    """The section of the page."""
    found = found_in(report)
    assert found is not None, "only a run that prunes towards a budget has this section"
    parts = [element("p", sentence(found))]
    parts += [element("p", text, class_="note") for text in (found.get("why_not_met"), found.get("drift")) if text]
    lines = shown(found)
    if lines:
        caption = "Candidates; times as shares of the unpruned float network's"
        parts.append(table("trials", caption, HEAD, lines, words=1))
    drawing = front(found)
    if drawing is not None:
        parts.append(
            figure(drawing, "The line is what the tables expect, after the last correction; points were measured.")
        )
    if found.get("widths"):
        kept = {
            name: f"{width} of {found['groups'].get(name, width)}"
            for name, width in list(found["widths"].items())[:MOST_GROUPS]
        }
        parts.append(details("Channels that stay (a block: 1 stays, 0 is gone)", facts(kept)))
    if found.get("not_pruned"):
        parts.append(details("What could not be pruned, and why", facts(found["not_pruned"])))
    return section(*TITLE, *parts)


def front(found: Mapping[str, Any]) -> Markup | None:
    """Importance kept against time: what was expected, and the candidates that were measured."""
    path: Sequence[Sequence[float]] = found.get("front") or ()
    if len(path) < 2:
        return None
    drawing = axes(480, 330)
    drawing.grid(visible=True)
    drawing.plot(
        [100 * share for _, share in path], [100 * kept for kept, _ in path], color=COLOURS["muted"], linewidth=1.4
    )
    for trial in found["trials"]:
        drawing.plot(
            100 * trial["seen"]["share"], 100 * trial["importance_kept"], "o", markersize=8,
            color=COLOURS["s1"] if trial["met"] else COLOURS["s2"], markeredgecolor=COLOURS["paper"],
        )  # fmt: skip
    drawing.set_xlabel("time, % of the unpruned float network's")
    drawing.set_ylabel("importance kept, %")
    measured = "; ".join(
        f"{100 * trial['seen']['share']:.0f} % of the time keeps {100 * trial['importance_kept']:.0f} %"
        for trial in found["trials"]
    )
    return svg(drawing, key="front", label=f"Importance kept against time. Measured: {measured}.")


def notes(found: Mapping[str, Any]) -> list[str]:
    """What belongs among the caveats."""
    return [str(text) for text in (found.get("drift"), found.get("noise"), found.get("why_not_met")) if text]


def for_verdict(found: Mapping[str, Any]) -> str | None:
    """What the verdict has to say about it: that nothing was measured, or that it was not enough."""
    if found["measured_with"] is None:
        return "pruning went by multiply-accumulates and bytes, since the device was not there to be measured"
    if not found["met"]:
        came = ", ".join(f"{one['goal']} {words.number(one['value'])}" for one in found["reached"])
        return f"the nearest that pruning found came to {came}"
    return None
