"""A folder as a finished run leaves it, with figures that follow from their samples; no model is run for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from report_sample import sample_report

from edgepress.pipeline import sums
from edgepress.pipeline.choose import choose, conclude, judge
from edgepress.pipeline.report.schema import Accuracy, Chosen, Latency, Ratio, Report, Variant
from edgepress.targets import facts, profiles, statistics
from edgepress.targets.profiles import Budget

PROFILE = profiles.load("openvino-cpu")
BUDGET = Budget(accuracy_drop=2.0)


def honest_report() -> Report:
    """The sample with every figure derived by the program's own rules."""
    drawn = sample_report()
    timed = {
        variant.name: statistics.Latency(samples_ms=tuple(map(tuple, variant.latency_ms.samples)))
        for variant in drawn.variants
        if variant.latency_ms
    }
    variants = [_honest(variant, drawn.variants[0], timed) for variant in drawn.variants]
    found = choose(variants, facts.ratios(timed), BUDGET, PROFILE)
    chosen = next(variant for variant in variants if variant.name == found.name)
    limits = judge(chosen, BUDGET, PROFILE)
    return drawn.model_copy(
        update={
            "variants": variants, "chosen": Chosen(name=found.name, why=found.why), "budget": limits,
            "profile": PROFILE.model_dump(mode="json"), "verdict": conclude(chosen, variants[0], limits, PROFILE),
        }
    )  # fmt: skip


def _honest(variant: Variant, baseline: Variant, timed: dict[str, statistics.Latency]) -> Variant:
    accuracy, before = variant.accuracy, baseline.accuracy
    assert accuracy is not None
    assert before is not None
    ratio = statistics.ratio(timed[baseline.name], timed[variant.name])
    is_baseline = variant.name == baseline.name
    changes: dict[str, Any] = {
        "latency_ms": _latency(timed[variant.name]),
        "all_cores_ms": None,
        "speedup": None if is_baseline else Ratio(value=ratio.value, ci95=(ratio.low, ratio.high)),
        "accuracy": Accuracy(
            value=accuracy.value, n=accuracy.n, where="device", drop=None if is_baseline else before.value - accuracy.value,
            ci95=statistics.wilson(round(accuracy.value * accuracy.n / 100), accuracy.n),
            drop_ci95=accuracy.drop_ci95,
        ),
    }  # fmt: skip
    return variant.model_copy(update=changes)


def _latency(latency: statistics.Latency) -> Latency:
    known = facts.latency_facts(latency)
    assert known is not None
    return Latency(**known, where="device", runtime="openvino")


def finished(folder: Path) -> Report:
    """Write such a run into a folder; the models are a few bytes that nothing can load."""
    report = honest_report()
    (folder / "models").mkdir(parents=True)
    for number, variant in enumerate(report.variants):
        path = folder / "models" / f"{variant.name}.onnx"
        path.write_bytes(b"x" * (100 + number))
        variant.size_bytes = path.stat().st_size
        variant.file = f"models/{path.name}"
    (folder / "report.json").write_text(report.model_dump_json())
    sums.write(folder)
    return report
