"""The report at a terminal, in a pipe, and on a console that knows only ASCII."""

import io

import pytest
from report_sample import sample_report
from rich.console import Console

from edgepress.pipeline.report.schema import Limit, Report
from edgepress.pipeline.report.terminal import print_report, table


def printed(report: Report, *, encoding: str = "utf-8", **options: object) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    print_report(report, Console(file=stream, **options))  # type: ignore[arg-type]
    return raw.getvalue().decode(encoding)


def test_a_pipe_gets_plain_text_within_100_columns() -> None:
    text = printed(sample_report(where="stand-in"))
    assert "\x1b" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


def test_every_variant_has_one_line_and_the_baseline_is_first() -> None:
    lines = [line for line in printed(sample_report()).splitlines() if "fp32" in line or "int8  " in line]
    assert [line.split()[0] for line in lines] == ["baseline", "distilled", "pruned", "▸"]


def test_the_chosen_line_is_marked_and_holds_its_figures() -> None:
    line = next(line for line in printed(sample_report()).splitlines() if line.startswith("▸"))
    for figure in ("int8", "97.6 % ±1.5", "0.1391 ±0.0002", "6.04× ±0.04", "60.0 KiB", "67.2 MiB", "99.7 %"):
        assert figure in line


def test_the_verdict_is_the_last_thing_said() -> None:
    text = printed(sample_report())
    assert " ".join(text.split()).endswith(sample_report().verdict.sentence)


def test_figures_of_a_stand_in_say_so_above_the_table() -> None:
    text = printed(sample_report(where="stand-in"))
    assert text.index("Stand-in: measured on this machine, not on the NVIDIA Jetson Nano") < text.index("variant")
    assert "On the NVIDIA Jetson Nano itself: not measured." in text
    assert "take the folder bundle to it" in " ".join(text.split())
    assert "Measured on this device" not in text


@pytest.mark.parametrize(("met", "word"), [(True, "✓ met"), (False, "✗ missed"), (None, "? not known")])
def test_each_limit_has_its_state_in_words(met: bool | None, word: str) -> None:
    report = sample_report()
    limit = Limit(limit=1.0, value=None if met is None else 0.5, met=met, why="because of the reason")
    text = printed(report.model_copy(update={"budget": {"latency_ms": limit}}))
    assert f"{word:<11} median latency: {'not measured' if met is None else '0.500 ms'}, at most 1 ms" in text
    assert ("because of the reason" in text) == (met is not True)


def test_a_variant_that_was_not_measured_says_so_in_every_column() -> None:
    report = sample_report()
    nothing = dict.fromkeys(("accuracy", "latency_ms", "speedup", "memory_mb", "parity"))
    report.variants[1] = report.variants[1].model_copy(update=nothing)
    line = next(line for line in printed(report).splitlines() if "distilled" in line)
    assert line.count("not measured") == 5 or line.count("not") == 5


def test_caveats_and_warnings_are_printed() -> None:
    text = printed(sample_report())
    assert "! The last half ran 1.4 % slower" in text
    assert "! int8: only 9 of 10 layers run in INT8" in text


def test_a_console_of_ascii_gets_ascii() -> None:
    text = printed(sample_report(), encoding="ascii")
    assert "6.04x +/-0.04" in text
    assert "> int8" in text


def test_a_narrow_terminal_keeps_each_variant_on_one_line() -> None:
    text = printed(sample_report(), width=80, force_terminal=True, color_system=None)
    lines = [line for line in text.splitlines() if "fp32" in line]
    assert len(lines) == 3
    assert all(line.count("KiB") + line.count("MiB") == 2 for line in lines)


def test_the_console_keeps_the_width_it_had() -> None:
    console = Console(file=io.StringIO(), width=60)
    print_report(sample_report(), console)
    assert console.width == 60


def test_markup_in_a_name_is_text() -> None:
    report = sample_report()
    report.variants[1] = report.variants[1].model_copy(update={"name": "[red]x[/]"})
    assert "[red]x[/]" in printed(report)


def test_the_table_has_as_many_rows_as_variants() -> None:
    assert table(sample_report()).row_count == 4
