"""The page's first sections: what was chosen, whether it keeps the budget, the variants, the caveats."""

from . import words
from .elements import Markup, element, join, section, stacked, table
from .pieces import name, place
from .rows import chosen, here, main_place, on_board, places, rows, warnings
from .schema import Interval, Report, Variant, Where


def key_figures(report: Report, where: Where) -> Markup:
    """The chosen variant against the baseline, large."""
    variant = chosen(report)
    if variant is None:
        return section("figures", "Key figures", element("p", words.NOT_MEASURED, class_="missing"))
    baseline = report.variants[0]
    tiles = (
        *_speed(variant, baseline, where),
        *_accuracy(report, variant, where, is_baseline=variant is baseline),
        _tile("File size", words.size(variant.size_bytes), _smaller(variant.size_bytes, baseline.size_bytes)),
        _memory(variant, baseline, where),
    )
    return section("figures", "Key figures", place(report, where, is_first=True), element("dl", *tiles, class_="tiles"))


def budget(report: Report) -> Markup:
    """Each limit against what was measured."""
    if not report.budget:
        return section("budget", "Budget", element("p", "None was set."))
    lines = []
    for key, facts in report.budget.items():
        what, limit, value = words.limit(key, facts, metric=words.metric(report))
        kind = {True: "met", False: "missed", None: "unknown"}[facts.met]
        state = element("span", words.state(facts.met), class_=f"state {kind}")
        lines.append((what[0].upper() + what[1:], limit, value, state, facts.why))
    head = ("Limit on", "Budget", "Measured", "State", "Why")
    body = table("limits", "The budget's limits and what was measured", head, lines, words=len(head))
    return section("budget", "Budget", body)


def variants(report: Report) -> Markup:
    """What each variant is, then its figures in one table for each place they were taken."""
    some = rows(report, where=main_place(report))
    marked = next((index for index, row in enumerate(some) if row.is_chosen), None)
    lines = [
        (
            name(index, row.name, is_chosen=row.is_chosen),
            *(row.description, row.precision, row.parameters, row.macs, row.size),
        )
        for index, row in enumerate(some)
    ]
    head = ("Variant", "Made by", "Precision", "Parameters", "MACs", "File size")
    made = table("made", "What each variant is", head, lines, words=3, marked=marked)
    measured = [_measured(report, where, marked=marked) for where in places(report) or ("device",)]
    for number, board in enumerate(report.boards, start=2):
        measured.append(_measured(on_board(report, board), "device", marked=marked, key=f"device-{number}"))
    note = (
        f"All variants were timed in turn in one run, batch 1, input from {words.inputs(report)}, "
        "output in host memory. Parentheses and ± hold 95 % intervals; that of the change is paired, on the same "
        "samples."
    )
    return section("variants", "Variants", made, *measured, element("p", note, class_="note"))


def caveats(report: Report) -> Markup:
    """Everything that weakens the figures, in plain words."""
    found = warnings(report)
    if not found:
        return section("caveats", "Caveats", element("p", "Nothing was seen that weakens these figures."))
    return section("caveats", "Caveats", element("ul", *(element("li", text) for text in found), class_="caveats"))


def _measured(report: Report, where: Where, *, marked: int | None, key: str | None = None) -> Markup:
    """key: in the names of its parts; None: the place's."""
    head = [
        "Variant",
        words.metric(report, title=True),
        "Change, points",
        "Median, ms",
        "p90 / p99, ms",
        "Times faster",
        "Peak memory",
        "Parity",
    ]
    lines = [
        [
            name(index, row.name, is_chosen=row.is_chosen),
            *map(
                _figure_or_missing,
                (row.accuracy, row.change, row.latency, row.tail, row.faster, row.memory, row.parity),
            ),
        ]
        for index, row in enumerate(rows(report, where=where))
    ]
    groups: list[tuple[str, int]] = []
    if "device" not in places(report):
        # the device keeps its own column: a stand-in's figure must never be read as the device's
        head.insert(1, "All figures")
        lines = [[line[0], words.NOT_MEASURED, *line[1:]] for line in lines]
        rest = "Stand-in: measured on this machine" if where == "stand-in" else words.ground(where, report)
        groups = [(f"On the {words.board(report)}", 1), (rest, len(head) - 2)]
    body = table(f"measured-{key or where}", "Figures of each variant", head, lines, groups=groups, marked=marked)
    return join(element("h3", words.ground(where, report), id=f"variants-{key or where}"), body)


def _tile(title: str, value: str, *about: str) -> Markup:
    kind = "missing" if value == words.NOT_MEASURED else "value"
    lines = (element("dd", line, class_="about") for line in about if line)
    return element("div", element("dt", title), element("dd", value, class_=kind), *lines)


def _speed(variant: Variant, baseline: Variant, where: Where) -> tuple[Markup, Markup]:
    latency, before = here(variant.latency_ms, where), here(baseline.latency_ms, where)
    speedup = variant.speedup if latency else None
    if variant is baseline:
        faster = _tile("Speed", "unchanged", "the baseline itself was chosen")
    elif speedup is None:
        faster = _tile("Speed", words.NOT_MEASURED, "against the baseline")
    else:
        faster = _tile("Speed", f"{words.number(speedup.value)}×", "faster than the baseline", _between(speedup.ci95))
    if latency is None:
        return faster, _tile("Median latency", words.NOT_MEASURED, "of one inference")
    against = f"baseline {words.number(before.median)} ms" if before else "baseline not measured"
    return faster, _tile("Median latency", f"{words.number(latency.median)} ms", against, _between(latency.ci95))


def _accuracy(report: Report, variant: Variant, where: Where, *, is_baseline: bool) -> tuple[Markup, Markup]:
    known, metric, samples = here(variant.accuracy, where), words.metric(report, title=True), words.samples(report)
    change = f"{metric} change"
    if known is None:
        return (
            _tile(metric, words.NOT_MEASURED, "in the runtime"),
            _tile(change, words.NOT_MEASURED, "against the baseline"),
        )
    others = [f"{name.removesuffix(', %')} {words.number(value)}" for name, value in known.also.items()]
    of = words.judged_on(report, known.n, word="of")
    itself = _tile(metric, f"{words.number(known.value, 1)} %", of, _between(known.ci95, 1), *others)
    if is_baseline:
        return itself, _tile(change, "none", "the baseline itself was chosen")
    if known.drop is None:
        return itself, _tile(change, words.NOT_MEASURED, "against the baseline")
    about = ["against the baseline"]
    if known.drop_ci95 is not None:
        low, high = known.drop_ci95
        about.append(f"95 % interval {words.signed(-high, 1)} to {words.signed(-low, 1)}")
    if known.mcnemar_p is not None:
        about.append(f"{known.lost} {samples} lost, {known.gained} won (McNemar p {words.p_value(known.mcnemar_p)})")
    return itself, _tile(change, f"{words.signed(-known.drop, 1)} points", *about)


def _memory(variant: Variant, baseline: Variant, where: Where) -> Markup:
    known, before = here(variant.memory_mb, where), here(baseline.memory_mb, where)
    about = f"baseline {words.mib(before.peak_rss)}" if before else "of a process that runs it"
    return _tile("Peak memory", words.mib(known.peak_rss if known else None), about)


def _smaller(size_bytes: int, baseline_bytes: int) -> str:
    times = baseline_bytes / size_bytes
    baseline = words.size(baseline_bytes)
    return f"{words.number(times)} times smaller than {baseline}" if times > 1.05 else f"baseline {baseline}"


def _between(ci95: Interval, decimals: int | None = None) -> str:
    if decimals is None:
        decimals = words.decimals_of(ci95[0], width=ci95[1] - ci95[0])
    return f"95 % interval {words.span(ci95, decimals, dash=' to ')}"


def _figure_or_missing(text: str) -> str:
    return text if text == words.NOT_MEASURED else stacked(text)
