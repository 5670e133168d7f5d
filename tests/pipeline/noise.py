"""What noise may change in a run on a busy machine, and nothing else: whether anything can be claimed of its timings."""

from __future__ import annotations

from edgepress.pipeline.report.schema import Report


def code_within_budget(report: Report) -> int:
    """The exit code of a run that meets its budget: 0, or 4 where the report says that the timings allow no claim."""
    verdict = report.verdict
    assert report.incomplete is None
    assert verdict.met is not False, verdict.sentence
    assert (verdict.unreliable is not None) == verdict.sentence.startswith("Unreliable: ")
    if verdict.unreliable is None:
        return 0
    assert verdict.met is None
    assert report.chosen.forced or report.chosen.name == "baseline"
    return 4 if report.budget else 0
