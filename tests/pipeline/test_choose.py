"""What is shipped, and what is said about the budget."""

from __future__ import annotations

from typing import Any

import pytest
from report_sample import sample_report

from edgepress.pipeline.choose import choose, conclude, judge
from edgepress.pipeline.job import exit_code
from edgepress.pipeline.report.schema import Accuracy, Latency, Memory, Ratio, Variant
from edgepress.targets import profiles
from edgepress.targets.profiles import Budget

LOCAL, AWAY = profiles.load("openvino-cpu"), profiles.load("jetson-nano")


def variant(name: str, median: float, *, accuracy: float = 90.0, val: float | None = None, **changes: Any) -> Variant:
    values: dict[str, Any] = {
        "name": name, "precision": "int8" if name == "int8" else "fp32", "description": name, "parameters": 10, "macs": 10,
        "size_bytes": 2**20, "file": f"models/{name}.onnx", "val_accuracy": accuracy if val is None else val,
        "torch_accuracy": accuracy, "all_cores_ms": None, "parity": None, "int8": None, "warnings": [],
        "accuracy": Accuracy(value=accuracy, n=1000, ci95=(accuracy - 2, accuracy + 2), where="device",
                             drop=90.0 - accuracy, drop_ci95=(89.5 - accuracy, 90.5 - accuracy)),
        "latency_ms": Latency(median=median, p90=median, p99=median, mean=median, minimum=median,
                              ci95=(0.98 * median, 1.02 * median), samples=[[median]], where="device", runtime="openvino", threads=1),
        "speedup": Ratio(value=1.0 / median, ci95=(0.95 / median, 1.05 / median)),
        "memory_mb": Memory(peak_rss=100.0, phases={}, where="device"),
    }  # fmt: skip
    return Variant(**(values | changes))


def ratios(*variants: Variant, spread: float = 0.02) -> dict[str, dict[str, list[float]]]:
    times = {entry.name: entry.latency_ms.median for entry in variants if entry.latency_ms}
    return {
        slow: {fast: [a / b, a / b * (1 - spread), a / b * (1 + spread)] for fast, b in times.items() if fast != slow}
        for slow, a in times.items()
    }


def chosen(*variants: Variant, budget: Budget | None = None, spread: float = 0.02) -> tuple[str, str]:
    found = choose(variants, ratios(*variants, spread=spread), budget or Budget(accuracy_drop=1.0), LOCAL)
    return found.name, found.why


def test_the_fastest_variant_that_is_accurate_enough_is_shipped() -> None:
    assert chosen(variant("baseline", 1.0), variant("pruned", 0.6), variant("int8", 0.3))[0] == "int8"


def test_a_quantized_model_that_is_slower_than_its_float_twin_is_never_shipped() -> None:
    name, why = chosen(variant("baseline", 1.0), variant("pruned", 0.5), variant("int8", 0.6))
    assert name == "pruned"
    assert "int8 is not surely faster than pruned" in why


def test_a_quantized_model_must_beat_the_bfloat16_twin_too() -> None:
    twin = variant("pruned-bf16", 0.28, precision="bf16")
    assert chosen(variant("baseline", 1.0), variant("pruned", 0.5), twin, variant("int8", 0.3))[0] == "pruned-bf16"


def test_a_speed_up_whose_interval_reaches_1_is_no_speed_up() -> None:
    assert chosen(variant("baseline", 1.0), variant("pruned", 0.97), spread=0.05)[0] == "baseline"


def test_an_inaccurate_variant_is_refused_and_the_reason_said() -> None:
    name, why = chosen(variant("baseline", 1.0), variant("pruned", 0.6), variant("int8", 0.3, accuracy=85.0))
    assert name == "pruned"
    assert "int8 loses 5.00 points on the validation images" in why


def test_a_reason_that_several_variants_share_is_said_once() -> None:
    bad = [
        variant("pruned", 0.6, accuracy=86.5),
        variant("pruned-bf16", 0.5, accuracy=86.0),
        variant("int8", 0.3, accuracy=80),
    ]
    _, why = chosen(variant("baseline", 1.0), variant("bf16", 1.1), *bad)
    assert why == (
        "the baseline stays: bf16 is not surely faster than baseline (0.91 times as fast, interval 0.89 to 0.93); these lose "
        "more points on the validation images than 1: pruned 3.50, pruned-bf16 4.00, int8 10.00"
    )
    _, why = chosen(variant("baseline", 1.0), *bad[:2], budget=Budget(accuracy=88))
    assert (
        why == "the baseline stays: these have less than 88 % on the validation images: pruned 86.50, pruned-bf16 86.00"
    )


def test_the_reported_test_images_choose_nothing() -> None:
    lucky = variant("int8", 0.3, accuracy=95.0, val=80.0)
    assert chosen(variant("baseline", 1.0), lucky)[0] == "baseline"


def test_a_variant_that_failed_is_refused_with_its_reason() -> None:
    nothing = {"latency_ms": None, "accuracy": None, "val_accuracy": None, "warnings": ["it crashed"]}
    broken = variant("int8", 0.3).model_copy(update=nothing)
    name, why = chosen(variant("baseline", 1.0), broken)
    assert name == "baseline"
    assert "it crashed" in why


@pytest.mark.parametrize(
    ("limits", "met"),
    [
        ({"latency_ms": 0.52}, True),
        ({"latency_ms": 0.505}, False),  # the median is below, its interval is not
        ({"latency_ms": 0.4}, False),
        ({"speedup": 1.8}, True),
        ({"speedup": 2.0}, False),  # the value is there, the lower end of its interval is not
        ({"accuracy": 89.0}, True),
        ({"accuracy_drop": 0.5}, False),
        ({"memory_mb": 101}, True),
        ({"size_mb": 0.5}, False),
        ({}, True),
        ({"size_mb": 2, "latency_ms": 0.1}, False),
    ],
)
def test_a_limit_is_met_only_by_the_whole_interval(limits: dict[str, float], met: bool) -> None:
    shipped = variant("pruned", 0.5, accuracy=89.2)
    found = judge(shipped, Budget(**limits), LOCAL)
    assert all(limit.value is not None for limit in found.values())
    assert conclude(shipped, variant("baseline", 1.0), found, LOCAL).met is met


def test_a_baseline_that_stays_misses_a_speed_up() -> None:
    stays = variant("baseline", 1.0).model_copy(update={"speedup": None})  # nothing that it was compared with
    found = judge(stays, Budget(speedup=2), LOCAL)
    assert (found["speedup"].met, found["speedup"].value) == (False, 1.0)
    assert "budget missed: speedup 1 times against at least 2 times" in conclude(stays, stays, found, LOCAL).sentence
    assert judge(stays, Budget(speedup=1), LOCAL)["speedup"].met
    unmeasured = stays.model_copy(update={"latency_ms": None})
    assert judge(unmeasured, Budget(speedup=2), LOCAL)["speedup"].met is None


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    shipped = variant("pruned", 0.5).model_copy(update={"latency_ms": None, "memory_mb": None})
    found = judge(shipped, Budget(latency_ms=1, memory_mb=500), LOCAL)
    assert [limit.met for limit in found.values()] == [None, None]
    assert all("not measured" in limit.why for limit in found.values())


def test_a_stand_in_never_meets_a_budget_and_never_chooses() -> None:
    slow = variant("pruned", 3.0)
    found = choose([variant("baseline", 1.0), slow], ratios(variant("baseline", 1.0), slow), Budget(), AWAY)
    assert found.name == "pruned"
    assert "not measured" in found.why
    limits = judge(slow, Budget(latency_ms=100, accuracy_drop=1, size_mb=10), AWAY)
    assert [limit.met for limit in limits.values()] == [None, None, True]
    verdict = conclude(slow, variant("baseline", 1.0), limits, AWAY)
    assert verdict.met is None
    assert "not known" in verdict.sentence


def test_the_verdict_says_how_much_faster_and_what_it_cost() -> None:
    shipped = variant("int8", 0.25, accuracy=89.5)
    sentence = conclude(
        shipped, variant("baseline", 1.0), judge(shipped, Budget(accuracy_drop=1), LOCAL), LOCAL
    ).sentence
    for words in ("int8", "4.00 times faster", "89.50 %", "n = 1000", "0.50 points below", "the budget is met"):
        assert words in sentence


@pytest.mark.parametrize(
    ("limits", "beyond"),
    [
        ({"accuracy_drop": 1.0}, ""),
        ({"accuracy_drop": 0.8}, "accuracy_drop"),
        ({"accuracy": 89.0}, "accuracy"),
        ({"accuracy": 89.0, "accuracy_drop": 0.8}, "accuracy and accuracy_drop"),
    ],
)
def test_an_accuracy_that_meets_its_limit_by_its_value_alone_is_called_so(
    limits: dict[str, float], beyond: str
) -> None:
    shipped = variant("int8", 0.25, accuracy=89.5)  # 0.5 points lost (0.0 to 1.0), 87.5 to 91.5 %
    found = judge(shipped, Budget(**limits), LOCAL)
    verdict = conclude(shipped, variant("baseline", 1.0), found, LOCAL)
    assert verdict.met is True
    ends = f"the budget is met, though the interval of {beyond} goes beyond it." if beyond else "the budget is met."
    assert verdict.sentence.endswith(ends)
    for name in beyond.split(" and ") if beyond else []:
        assert "and the interval reaches" in found[name].why


DOUBT = "unreliable: no comparison with baseline is known better than to ±31 % (int8)"


def test_nothing_is_chosen_by_timings_that_no_claim_can_rest_on() -> None:
    variants = [variant("baseline", 1.0), variant("int8", 0.3)]
    found = choose(variants, ratios(*variants), Budget(), LOCAL, doubt=DOUBT)
    assert found.name == "baseline"
    assert "±31 %" in found.why


def test_a_variant_that_the_user_names_is_shown_however_noisy_the_machine_is() -> None:
    variants = [variant("baseline", 1.0), variant("int8", 0.3)]
    found = choose(variants, ratios(*variants), Budget(), LOCAL, ship="int8", doubt=DOUBT)
    assert (found.name, found.forced) == ("int8", True)
    assert "±31 %" in found.why


def test_limits_on_time_are_not_judged_by_such_timings_and_others_are() -> None:
    shipped = variant("int8", 0.5, accuracy=89.2)
    limits = judge(shipped, Budget(latency_ms=100, speedup=1000, accuracy_drop=0.5, size_mb=2), LOCAL, doubt=DOUBT)
    assert {name: limit.met for name, limit in limits.items()} == {
        "latency_ms": None, "speedup": None, "accuracy_drop": False, "size_mb": True,
    }  # fmt: skip
    verdict = conclude(shipped, variant("baseline", 1.0), limits, LOCAL, doubt=DOUBT)
    assert verdict.met is False
    assert verdict.sentence.startswith("Unreliable: ")
    assert "no claim about speed can be made" in verdict.sentence
    assert "times faster" not in verdict.sentence


@pytest.mark.parametrize(
    ("report", "code"),
    [
        ({"met": True}, 0),
        ({"met": None}, 0),
        ({"met": False}, 4),
        ({"met": None, "unreliable": "too noisy"}, 4),
        ({"met": None, "unreliable": "too noisy", "budget": False}, 0),
        ({"met": None, "incomplete": "stopped"}, 130),
        ({"met": False, "incomplete": "stopped"}, 130),
    ],
)
def test_the_exit_code_says_whether_a_script_may_go_on(report: dict[str, Any], code: int) -> None:
    found = sample_report()
    found.verdict.met, found.verdict.unreliable = report["met"], report.get("unreliable")
    found.incomplete = report.get("incomplete")
    if report.get("budget") is False:
        found.budget = {}
    assert exit_code(found) == code


def test_without_data_the_verdict_says_what_the_accuracy_limits_were_judged_by() -> None:
    before, after = variant("baseline", 1.0), variant("int8", 0.3, accuracy=89.5)
    label = "agreement with the given model on images that were made"
    limits = judge(after, Budget(accuracy_drop=1.0, size_mb=2), LOCAL)
    said = conclude(after, before, limits, LOCAL, agreement=label)
    assert f"{label} 89.50 % (n = 1000), 0.50 points below the baseline" in said.sentence
    assert f"accuracy_drop was judged by {label}: accuracy cannot be known without data." in said.sentence
    assert said.met
    free = conclude(after, before, judge(after, Budget(size_mb=2), LOCAL), LOCAL, agreement=label)
    assert "judged by" not in free.sentence
    assert label not in conclude(after, before, limits, LOCAL).sentence


def test_a_variant_that_is_slower_on_a_further_board_is_not_shipped() -> None:
    here = [variant("baseline", 1.0), variant("pruned", 0.6), variant("int8", 0.3)]
    there = ratios(variant("baseline", 1.0), variant("pruned", 0.7), variant("int8", 0.8))
    found = choose(here, ratios(*here), Budget(), LOCAL, elsewhere={"ssh://other": there})
    assert found.name == "pruned"
    assert "int8 is not surely faster than pruned" in found.why
    assert "on ssh://other" in found.why


def test_a_variant_that_was_not_timed_on_a_further_board_is_not_shipped() -> None:
    here = [variant("baseline", 1.0), variant("pruned", 0.6)]
    found = choose(here, ratios(*here), Budget(), LOCAL, elsewhere={"ssh://other": {}})
    assert (found.name, "pruned was not timed on ssh://other" in found.why) == ("baseline", True)


def test_a_limit_holds_on_every_board() -> None:
    budget = Budget(latency_ms=0.5, memory_mb=200.0)
    limits = judge(variant("int8", 0.3), budget, LOCAL, elsewhere={"ssh://other": variant("int8", 0.6)})
    assert (limits["latency_ms"].met, limits["latency_ms"].value) == (False, 0.6)
    assert limits["latency_ms"].why.endswith("on ssh://other")
    assert limits["memory_mb"].met is True
    unknown = judge(
        variant("int8", 0.3), budget, LOCAL, elsewhere={"ssh://other": variant("int8", 0.3, latency_ms=None)}
    )
    assert unknown["latency_ms"].met is None
