"""The report for a person at a terminal: one table, the budget, the verdict."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import estimated, synthesis, words
from .layers import float_rows, quantization
from .rows import Row, main_place, on_board, rows, warnings
from .schema import Report, Variant

NARROW = 92  # below it, eight columns do not fit
WIDTH = 100  # of output that goes to a file or a pipe, where there is no window to ask
ASCII = str.maketrans({"×": "x", "±": "+/-", "–": "-", "−": "-", "▸": ">", "·": "|", "✓": "+", "✗": "!"})
STYLES = {True: "green", False: "bold red", None: "yellow"}


def print_report(report: Report, console: Console) -> None:
    """Print it all; the verdict stands last, where the eye is when the command ends."""
    plain = console.options.ascii_only
    width = console.width
    if not console.is_terminal:
        console.width = max(width, WIDTH)
    try:
        tables = [table(report, width=console.width, plain=plain), *_boards(report, console.width, plain=plain)]
        for line in (*_heading(report), *tables, *_notes(report)):
            console.print(_ascii(line) if plain and isinstance(line, Text) else line, highlight=False)
        for line in (*_budget(report), _verdict(report)):
            console.print(_ascii(line) if plain else line, highlight=False)
    finally:
        console.width = width


def table(report: Report, *, width: int = WIDTH, plain: bool = False) -> Table:
    """The variants, the baseline first and the chosen one marked.

    width: columns there are; below 90 the parity is left to the other renderings. plain: ASCII only.
    """
    is_narrow = width < NARROW
    result = Table(box=None, pad_edge=False, padding=(0, 1 if is_narrow else 2, 0, 0), header_style="bold")
    titles = ["  variant", "precision", words.metric(report), "latency, ms", "times faster", "size", "memory", "parity"]
    for place, title in enumerate(titles[:-1] if is_narrow else titles):
        result.add_column(title, overflow="fold", justify="left" if place < 2 else "right")
    lines = zip(report.variants, rows(report, where=main_place(report)), strict=True)
    for variant, row in lines:
        cells = (Text(_ascii_if(cell, plain)) for cell in _cells(variant, row)[: len(result.columns)])
        result.add_row(*cells, style="bold green" if row.is_chosen else "")
    return result


def _cells(variant: Variant, row: Row) -> list[str]:
    latency, faster = row.latency, row.faster
    if variant.latency_ms and latency != words.NOT_MEASURED:
        latency = words.plus_minus(variant.latency_ms.median, variant.latency_ms.ci95)
        if variant.speedup and row.faster != "baseline":
            faster = words.plus_minus(variant.speedup.value, variant.speedup.ci95, unit="×")
    mark = "▸" if row.is_chosen else " "
    parity = row.parity.removeprefix("agrees ")
    return [f"{mark} {row.name}", row.precision, row.accuracy, latency, faster, row.size, row.memory, parity]


def _heading(report: Report) -> list[Text]:
    place = main_place(report)
    name = str(report.profile.get("name", ""))
    first = Text.assemble((name, "bold"), f" · {words.board(report)}")
    second = Text(words.ground(place, report), style="bold" if place == "device" else "bold yellow")
    if report.data is not None:
        judged = f"{words.metric(report)} {words.judged_on(report, report.data.test)}"
        second.append(f" · {judged}", style="not bold default")
    lines = [first, second]
    if place != "device":
        missing = f"On the {words.board(report)} itself: {words.NOT_MEASURED}.{words.way_there(report)}"
        lines.append(Text(missing, style="yellow"))
    told = synthesis.sentences(report)
    lines += [Text(text, style="bold yellow" if text is told[0] else "yellow") for text in told]
    return [*lines, Text()]


def _boards(report: Report, width: int, *, plain: bool) -> list[Text | Table]:
    """The same table for each further board."""
    found: list[Text | Table] = []
    for board in report.boards:
        there = on_board(report, board)
        found += [Text(), Text(words.ground("device", there), style="bold"), Text()]
        found.append(table(there, width=width, plain=plain))
    return found


def _notes(report: Report) -> list[Text]:
    notes = [
        *(Text(text, style="yellow") for text in estimated.lines(report)),
        *(Text(text, style="dim") for text in synthesis.about(report)),
        Text("± is half a 95 % interval, on its longer side; ▸ marks what was chosen.", style="dim"),
        Text(),
    ]
    notes += [Text(text) for text in quantization(report)]
    back = [row[0] for row in float_rows(report)]
    if back:
        notes.append(Text(f"In float: {', '.join(back)}", style="dim"))
    if quantization(report):
        notes.append(Text())
    found = [Text.assemble(("! ", "yellow"), text) for text in warnings(report)]
    return [*notes, *found, Text()] if found else notes


def _budget(report: Report) -> list[Text]:
    if not report.budget:
        return [Text("Budget: none was set.", style="dim"), Text()]
    lines = [Text("Budget", style="bold")]
    for name, facts in report.budget.items():
        what, limit, value = words.limit(name, facts, metric=words.metric(report))
        lines.append(
            Text.assemble((f"  {words.state(facts.met):<11}", STYLES[facts.met]), f" {what}: {value}, {limit}")
        )
        if facts.met is not True and facts.why:
            lines.append(Text(f"{'':14}{facts.why}", style="dim"))
    return [*lines, Text()]


def _verdict(report: Report) -> Text:
    return Text(report.verdict.sentence, style=f"bold {STYLES[report.verdict.met].removeprefix('bold ')}")


def _ascii(text: Text) -> Text:
    """The same text for a console that cannot show more than ASCII."""
    return Text(_ascii_if(text.plain, True), style=text.style)


def _ascii_if(text: str, plain: bool) -> str:
    return text.translate(ASCII).encode("ascii", "replace").decode() if plain else text
