"""What the report says of throughput, start, energy and long runs."""

from __future__ import annotations

import pytest
from report_sample import sample_report

from edgepress.pipeline.report.html import html
from edgepress.pipeline.report.markdown import markdown
from edgepress.pipeline.report.schema import ColdStart, Energy, Report, Sustained, Throughput
from edgepress.targets.statistics import Latency
from edgepress.targets.surroundings import Look
from edgepress.targets.sustained import sentence, summary

MISSING = "this machine has no energy counter"


@pytest.fixture
def report() -> Report:
    """The sample with what is said here; the last variant has no energy."""
    found = sample_report()
    for place, variant in enumerate(found.variants, 1):
        variant.throughput = [
            Throughput(batch=batch, per_second=1234.0 * place * batch, threads=1, where="device") for batch in (1, 8)
        ]
        variant.cold_start = ColdStart(runtime_ms=310.0, load_ms=21.5, first_ms=1.75, where="device")
        variant.energy = Energy(
            per_inference_mj=4.56, rounds_mj=[4.5, 4.56, 4.6], watts=21.0, rest_watts=9.0, inferences=9000,
            meter="RAPL", where="device",
        )  # fmt: skip
    found.variants[-1].energy = None
    found.not_measured = {"energy": MISSING}
    return found


def lasting(report: Report, *, with_heat: bool) -> Report:
    """The same after a sustained run in which the baseline grew hot."""
    latencies = {}
    for place, variant in enumerate(report.variants):
        times = [(1 + (0.5 * step / 200 if place == 0 else 0)) / (1 + place) for step in range(200)]
        latencies[variant.name] = Latency(
            samples_ms=tuple((time, 1.01 * time) for time in times), visited_s=tuple(3.0 * step for step in range(200))
        )
    looks = [
        Look(at_s=float(second), frequency_mhz=3000.0, temperature_c=40 + second / 20 if with_heat else None)
        for second in range(600)
    ]
    facts = summary(latencies, looks)
    assert facts is not None
    report.sustained = Sustained(**facts, sentence=sentence(facts), where="device")
    return report


def test_throughput_start_and_energy_stand_in_page_and_markdown(report: Report) -> None:
    for text in (html(report), markdown(report)):
        for figure in ("1234 (batch 1), 9872 (batch 8)", "21.5", "1.75", "4.56"):
            assert figure in text.replace("\\", "")


def test_an_energy_that_was_not_measured_is_never_zero_and_has_its_reason(report: Report) -> None:
    for text in (html(report), markdown(report)):
        assert MISSING in text
        assert "not measured" in text
    row = next(line for line in markdown(report).splitlines() if line.startswith("| int8 |") and "batch 8" in line)
    assert row.endswith("| not measured |")


def test_figures_of_another_place_do_not_share_the_column(report: Report) -> None:
    for variant in report.variants:
        for figure in (*variant.throughput, variant.cold_start, variant.energy):
            if figure is not None:
                figure.where = "stand-in"
    page = html(report)
    assert "1234 (batch 1)" not in page[page.index('id="running"') : page.index('id="sustained"')]


def test_a_long_run_is_drawn_with_its_heat_and_said_in_words(report: Report) -> None:
    page = html(lasting(report, with_heat=True))
    part = page[page.index('<section id="sustained"') :]
    part = part[: part.index("</section>")]
    assert "still held at the end; baseline slowed down most, 1.4" in part
    assert part.count("<svg") == 3
    assert "Temperature of the warmest sensor" in part
    assert "still held at the end" in markdown(report)


def test_a_long_run_without_a_sensor_says_so(report: Report) -> None:
    page = html(lasting(report, with_heat=False))
    part = page[page.index('<section id="sustained"') :]
    assert part[: part.index("</section>")].count("<svg") == 2
    assert "Temperature: not measured, there is no sensor." in page


def test_without_a_long_run_the_page_says_how_to_get_one() -> None:
    assert "profile.sustained_seconds=600" in html(sample_report())
