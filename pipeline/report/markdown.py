"""The report for a pull request: what was chosen, the table, the budget, and where the figures come from."""

import re

from ...targets.durations import duration
from . import estimated, running, shaping, synthesis, words
from .layers import float_rows, quantization, top_rows
from .rows import Row, on_board, places, rows, warnings
from .schema import Report, Where

COLUMNS = (
    "variant",
    "precision",
    "accuracy",
    "change",
    "median latency, ms",
    "faster",
    "size",
    "peak memory",
    "parity",
)
TOP_LAYERS = 5


def markdown(report: Report) -> str:
    """All of it, as GitHub renders it."""
    parts = [
        f"## {_escape(report.verdict.sentence)}",
        f"`{_code(report.chosen.name)}` was chosen: {_escape(report.chosen.why)}",
        *_banner(report),
        *_variants(report),
        *_estimates(report),
        *_budget(report),
        *_running(report),
        *_layers(report),
        *_shaping(report),
        *_synthesis(report),
        *_warnings(report),
        _footer(report),
    ]
    return "\n\n".join(parts) + "\n"


def _banner(report: Report) -> list[str]:
    """What a reader must know of a run without data, before any figure."""
    first, *others = synthesis.sentences(report) or [""]
    return ["> " + " ".join([f"**{_escape(first)}**", *map(_escape, others)])] if first else []


def _variants(report: Report) -> list[str]:
    here = places(report)
    parts = []
    if "device" not in here:
        missing = f"On the {words.board(report)} itself: {words.NOT_MEASURED}.{words.way_there(report)}"
        parts.append(_escape(missing))
    for where in here or ("device",):
        parts += [f"### {_escape(words.ground(where, report))}", _table(report, where=where)]
    for board in report.boards:
        there = on_board(report, board)
        parts += [f"### {_escape(words.ground('device', there))}", _table(there, where="device")]
    parts.append("Parentheses and ± are 95 % intervals. The variants were timed in turn, in one run.")
    return parts


def _table(report: Report, *, where: Where) -> str:
    titles = [words.metric(report) if title == "accuracy" else title for title in COLUMNS]
    lines = ["| " + " | ".join(titles) + " |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    return "\n".join([*lines, *(_line(row) for row in rows(report, where=where))])


def _line(row: Row) -> str:
    figures = (row.accuracy, row.change, row.latency, row.faster, row.size, row.memory, row.parity)
    shown = [_escape(cell) for cell in (row.name, row.precision, *figures)]
    if row.is_chosen:
        shown = [f"**{cell}**" for cell in shown]
    return "| " + " | ".join(shown) + " |"


def _estimates(report: Report) -> list[str]:
    """Apart from the table of what was measured."""
    if not estimated.shown(report):
        return []
    lines = ["| " + " | ".join(estimated.HEAD) + " |", "|---|---|---:|---:|"]
    found = (estimated.cells(one) for one in estimated.shown(report))
    lines += ["| " + " | ".join(_escape(cell) for cell in cells) + " |" for cells in found]
    return [f"### {estimated.TITLE}", "\n".join(lines), _escape(estimated.sentence(report))]


def _budget(report: Report) -> list[str]:
    if not report.budget:
        return ["### Budget", "None was set."]
    lines = ["| | limit | measured | |", "|---|---|---|---|"]
    for name, facts in report.budget.items():
        what, limit, value = words.limit(name, facts, metric=words.metric(report))
        cells = (
            what,
            limit,
            value,
            words.state(facts.met) + (f": {facts.why}" if facts.met is not True else ""),
        )
        lines.append("| " + " | ".join(_escape(cell) for cell in cells) + " |")
    return ["### Budget", "\n".join(lines)]


def _running(report: Report) -> list[str]:
    """Throughput, start and energy, and what came of a sustained run."""
    parts = ["### Throughput, start and energy"]
    for where in places(report):
        lines = ["| " + " | ".join(running.HEAD) + " |", "|---|" + "---:|" * (len(running.HEAD) - 1)]
        for variant in report.variants:
            shown = (variant.name, *running.cells(variant, where))
            lines.append("| " + " | ".join(_escape(cell) for cell in shown) + " |")
        parts.append("\n".join(lines))
    if len(parts) == 1:
        return []
    parts += [_escape(f"{what}: {words.NOT_MEASURED}, {why}.") for what, why in report.not_measured.items()]
    if report.sustained:
        parts.append(_escape(f"Sustained run: {report.sustained.sentence}"))
    return parts


def _layers(report: Report) -> list[str]:
    """The costliest layers of the baseline and of what was chosen."""
    parts = []
    for variant in report.variants:
        found = top_rows(variant, TOP_LAYERS)
        if found and (variant is report.variants[0] or variant.name == report.chosen.name):
            lines = ["| layer | type | precision | time | share |", "|---|---|---|---:|---:|"]
            lines += ["| " + " | ".join(_escape(cell) for cell in cells) + " |" for cells in found]
            parts += [f"Costliest layers of `{_code(variant.name)}`:", "\n".join(lines)]
    parts += [_escape(text) for text in quantization(report)]
    back = float_rows(report)
    if back:
        head = "| back in float | loss when it alone is INT8 | signal to noise, dB | INT8 saves |"
        lines = ["| " + " | ".join(map(_escape, cells)) + " |" for cells in back]
        parts.append("\n".join([head, "|---|---:|---:|---:|", *lines]))
    return ["### Time by layer", *parts] if parts else []


def _shaping(report: Report) -> list[str]:
    """Every candidate on the way to the budget."""
    found = shaping.found_in(report)
    if found is None:
        return []
    lines = ["| " + " | ".join(shaping.HEAD) + " |", "|---|" + "---:|" * (len(shaping.HEAD) - 2) + "---|"]
    lines += ["| " + " | ".join(_escape(cell) for cell in cells) + " |" for cells in shaping.shown(found)]
    table = ["\n".join(lines)] if len(lines) > 2 else []
    return ["### " + shaping.TITLE[1], _escape(shaping.sentence(found)), *table]


def _synthesis(report: Report) -> list[str]:
    """The images that stood in for data, by class."""
    if report.synthesis is None:
        return []
    lines = ["| class | images | share | confidence |", "|---|---:|---:|---:|"]
    lines += ["| " + " | ".join(_escape(cell) for cell in cells) + " |" for _, cells in synthesis.class_rows(report)]
    told = [_escape(text) for text in synthesis.about(report)]
    return [f"### {_escape(synthesis.title(report))}", " ".join(told), "\n".join(lines)]


def _warnings(report: Report) -> list[str]:
    found = warnings(report)
    return ["### Caveats", "\n".join(f"- {_escape(text)}" for text in found)] if found else []


def _footer(report: Report) -> str:
    facts = [f"`{_code(report.run.command)}`", f"profile {_escape(str(report.profile.get('name', '')))}"]
    if report.data is not None:
        facts.append(_escape(synthesis.judges(report)))
    facts += [f"seed {report.run.seed}", f"{duration(report.run.seconds)}", _escape(report.run.started)]
    return "<sub>" + " · ".join(facts) + ". Every sample is in report.json.</sub>"


def _escape(text: str) -> str:
    """Text that Markdown and HTML leave alone, on one line."""
    one_line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#@!])", r"\\\1", one_line)


def _code(text: str) -> str:
    """Text for between backticks."""
    return " ".join(text.split()).replace("`", "'").replace("|", "\\|")
