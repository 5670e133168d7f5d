"""What is said of a run without data: at the top what was measured on what, and further down the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...targets.durations import duration
from . import words
from .elements import Markup, element, facts, image, join, section, table
from .schema import Report, StageFacts, SynthesisFacts, SynthesisRestart

STARTS = "starts"  # of a stage's metrics: what became of each game with a student
STRIP = "3rem"  # height of the small images on the page


def title(report: Report) -> str:
    """Of the section."""
    kind = report.synthesis.kind if report.synthesis else "images"
    return kind[:1].upper() + kind[1:]


def sentences(report: Report) -> list[str]:
    """For the top of every rendering; the first is the one that must not be missed. None of a run with data."""
    made = report.synthesis
    if made is None:
        return []
    said = [f"No data of the task were used: the {made.images} images that the stages worked on {_origin(made)}."]
    if not any(variant.accuracy for variant in report.variants):
        said.append("Nothing was measured on real data, nor on others: the profile stage did not run.")
    elif made.evaluated_on is None:
        count = f"{report.data.test} of them" if report.data else "them"
        said += [
            f"What is reported in place of accuracy is {words.label(report)}: "
            f"how many of {count} get the answer that it gives. The given model itself has 100 % by definition.",
            "How accurate it or any variant is on real data cannot be known without some: name them with --eval-data. "
            "Latency, memory and size are measured as ever.",
        ]
    else:
        count = f"{report.data.test} test {report.data.samples}" if report.data else "test images"
        said.append(
            f"{words.metric(report, title=True)} was measured on {count} of {made.evaluated_on}, which chose nothing: "
            + _choice(report, made)
        )
    return [*said, *([f"Nothing good can be expected of these images: {made.collapsed}."] if made.collapsed else [])]


def banner(report: Report) -> Markup:
    """The same for the page; nothing for a run with data."""
    told = sentences(report)
    if not told:
        return Markup("")
    link = element("a", "See the images.", href="#synthesis")
    first = element("strong", told[0])
    return element("p", first, " ", " ".join(told[1:]), " ", link, class_="stand-in", style="margin-top:1.4rem")


def about(report: Report) -> list[str]:
    """The images in two sentences, for renderings that show none."""
    made = report.synthesis
    if made is None:
        return []
    return [
        f"{made.images} {made.kind}, {_making(made)}: the given model is "
        f"{_percent(made.teacher_confidence)} sure of them, class balance {words.number(made.balance, 2)}, "
        f"data-free score {words.number(made.score, 2)}{_chosen(made)}.",
        *([compared(report, made)] if made.controls else []),
        "The contact sheet is in report.html.",
    ]


def compared(report: Report, made: SynthesisFacts) -> str:
    """The students of the made images and of the controls, in a sentence."""
    first, *others = [f"{words.number(one.value, 1)} % on {one.source}" for one in made.controls]
    count, figure = made.controls[0].n, words.metric(report)
    return f"The student's {figure}, n = {count}, by what taught it: {first}; as controls {', '.join(others)}."


def class_rows(report: Report) -> list[tuple[str | None, tuple[str, str, str, str]]]:
    """Of each class on the sheet: the small images, and its name, how many, their share, the confidence."""
    made = report.synthesis
    if made is None:
        return []
    names = report.data.classes if report.data else []
    rows: list[tuple[str | None, tuple[str, str, str, str]]] = []
    for strip in made.sheet:
        count, sure = made.class_counts[strip.label], made.class_confidence[strip.label]
        name = names[strip.label] if strip.label < len(names) else str(strip.label)
        share = _percent(count / max(1, sum(made.class_counts)))
        rows.append((strip.png, (name, str(count), share, "no image" if sure is None else _percent(sure))))
    return rows


def judges(report: Report) -> str:
    """What the figure is of: `accuracy on 449 test images of builtin:digits`."""
    if report.data is None:
        return ""
    made, figure = report.synthesis, f"{words.metric(report)} {words.judged_on(report, report.data.test)}"
    if made is None:
        return f"{figure} of {report.data.source}"
    return figure if made.evaluated_on is None else f"{figure} of {made.evaluated_on}"


def caption(report: Report) -> str:
    """Over the table of the splits."""
    known = report.data
    assert known is not None, "there are splits"
    origin = known.source if report.synthesis is None else f"data.source {known.source}, which is no data of the task"
    return f"{known.samples.capitalize()} of {origin}"


def roles(report: Report) -> list[tuple[str, str, str]]:
    """Of the samples that choose: the split, how many, and what they did."""
    known, made = report.data, report.synthesis
    assert known is not None, "there are splits"
    if made is None:
        return [("validation", str(known.val), "chose between epochs and between variants")]
    agreement = f"by agreement with the given model on {made.kind}"
    if not known.deciding:
        return [("validation", str(known.val), f"chose between epochs and between variants, {agreement}")]
    decided = f"real ones, of {made.evaluated_on}: chose between variants"
    return [
        ("validation", str(known.val), f"chose between epochs, {agreement}"),
        ("deciding", str(known.deciding), decided),
    ]


def _choice(report: Report, made: SynthesisFacts) -> str:
    agreement = f"by agreement with the given model on {made.kind}"
    if report.data is None or not report.data.deciding:
        return f"epochs and variants were chosen {agreement}."
    return f"epochs were chosen {agreement}, and variants on {report.data.deciding} others of the same source."


def role_of_test(report: Report) -> str:
    """What the test samples did."""
    made, role = report.synthesis, f"every {words.metric(report)} in this report is on these"
    if made is None:
        return f"chose nothing: {role}"
    if made.evaluated_on is None:
        return f"images that were made, chose nothing: {role}"
    return f"real ones, of {made.evaluated_on}, chose nothing: {role}"


def section_of(report: Report) -> Markup:
    """The section of the page: how the images came about, the contact sheet, and the attempts."""
    made = report.synthesis
    assert made is not None, "only a run without data has this section"
    parts = [facts(_facts(made)), _sheet(report, made)]
    if len(made.restarts) > 1:
        parts.append(_restarts(made))
    parts += [_starts(stage) for stage in report.stages if stage.metrics.get(STARTS)]
    if made.controls:
        parts.append(_controls(report, made))
    note = (
        "The score is the geometric mean of what an answer of the given model tells about an image (1: every answer "
        "sure, all classes alike), of how much images of a class differ and, where a student learns from them, of how "
        "often it answers as the given model does on the images of all starts. It needs no data, so that choosing by "
        "it uses up no test samples."
    )
    if made.kind.endswith("made") and not made.source.startswith("cached:"):
        note += " `compress pool DIR`, with this run's folder, counts the images again, and writes them as PNG files."
    return section("synthesis", title(report), *parts, element("p", note, class_="note"))


def _origin(made: SynthesisFacts) -> str:
    if not made.kind.endswith("made"):
        return f"are those of {made.source}"
    when = " in an earlier run" if made.source.startswith("cached:") else ""
    return "are noise" if made.method == "noise" else f"were made from the given model{when} ({made.method})"


def _making(made: SynthesisFacts) -> str:
    """By what, and in what time where it was in this run."""
    if not made.kind.endswith("made"):
        return f"those of {made.source}"
    if made.source.startswith("cached:"):
        return f"by {made.method}, in an earlier run"
    return f"by {made.method}, in {duration(made.seconds)}"


def _facts(made: SynthesisFacts) -> dict[str, object]:
    found: dict[str, object] = {
        "method": f"{made.method}: {made.reason}",
        "images": f"{made.images}, {_making(made)}",
        "confidence of the given model": f"{_percent(made.teacher_confidence)} on average",
        "class balance": f"{words.number(made.balance, 2)} (1: all classes alike, 0: one class)",
        "spread within a class": f"{_percent(made.spread)} of a pixel's range",
        "data-free score": f"{words.number(made.score, 2)} of 1",
    }
    return found | {"collapsed": made.collapsed} if made.collapsed else found


def _sheet(report: Report, made: SynthesisFacts) -> Markup:
    lines = []
    for png, (name, count, share, sure) in class_rows(report):
        alt = f"Images that the given model takes for {name}, the surest first"
        shown: str = image(png, alt=alt, height=STRIP) if png else "none"
        lines.append((name, shown, count, share, sure))
    head = ("Class", "From the surest to the least sure", "Images", "Share", "Confidence")
    body = table("sheet", "Contact sheet, by the class that the given model sees", head, lines, words=2)
    left_out = len(made.class_counts) - len(made.sheet)
    if not made.sheet or not left_out:
        return body
    note = f"Shown are the classes with most and with fewest images; {left_out} between them are not."
    return join(body, element("p", note, class_="note"))


def _restarts(made: SynthesisFacts) -> Markup:
    best = max(range(len(made.restarts)), key=lambda at: _rank(made.restarts[at]))
    lines = [
        (str(one.seed), words.number(one.score, 3), one.collapsed or "no", "kept" if at == best else "")
        for at, one in enumerate(made.restarts)
    ]
    head = ("Seed", "Score", "Collapsed", "")
    return table("attempts", "Attempts, chosen by the data-free score", head, lines, words=len(head), marked=best)


def _starts(stage: StageFacts) -> Markup:
    """The games of generator and student that were begun, and the one that went on."""
    starts: list[Mapping[str, Any]] = stage.metrics[STARTS]
    lines = [
        (
            str(number),
            "" if one["score"] is None else words.number(one["score"], 3),
            "" if one["disagreement"] is None else _percent(one["disagreement"]),
            one["collapsed"] or "no",
            "went on" if one["kept"] else "",
        )
        for number, one in enumerate(starts, 1)
    ]
    best = next(number for number, one in enumerate(starts) if one["kept"])
    head = ("Start", "Score", "Disagreement left", "Collapsed", "")
    title = f"Starts of the images made in {stage.name}, chosen by the data-free score after a trial"
    return table(f"starts-{stage.name}", title, head, lines, words=len(head), marked=best)


def _controls(report: Report, made: SynthesisFacts) -> Markup:
    """What the made images are worth beside noise or other pictures."""
    lines = [
        (
            one.source,
            f"{words.number(one.value, 2)} %",
            f"{words.number(one.ci95[0], 2)} to {words.number(one.ci95[1], 2)} %",
            duration(one.seconds),
        )
        for one in made.controls
    ]
    head = ("Taught on", f"{words.metric(report, title=True)}, n = {made.controls[0].n}", "95 %", "Time")
    title = "The same student, as many steps, on other images: in float32, in ONNX Runtime"
    return table("controls", title, head, lines, words=1, marked=0)


def _rank(one: SynthesisRestart) -> tuple[bool, float]:
    return one.collapsed is None, one.score


def _chosen(made: SynthesisFacts) -> str:
    return f", the best of {len(made.restarts)} attempts" if len(made.restarts) > 1 else ""


def _percent(share: float) -> str:
    return f"{words.number(100 * share, 1)} %"
