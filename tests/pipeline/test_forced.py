"""The user may ship a variant that the guard refuses, and the report says so; a refusal says why."""

from __future__ import annotations

from typing import Any

import pytest
from report_sample import sample_report

from edgepress.pipeline.choose import choose, conclude, reasons_in
from edgepress.pipeline.report.schema import Chosen, Ratio, Variant
from edgepress.targets import profiles
from edgepress.targets.errors import RecipeError
from edgepress.targets.profiles import Budget

LOCAL = profiles.load("openvino-cpu")
NONE = Budget()
SLOW = {"baseline": {"int8": [0.8, 0.78, 0.82]}, "pruned": {"int8": [0.4, 0.38, 0.42]}}


def variants(**changes: Any) -> list[Variant]:
    """The baseline and an INT8 variant."""
    drawn = {variant.name: variant for variant in sample_report().variants}
    return [drawn["baseline"], drawn["int8"].model_copy(update={"name": "int8", **changes})]


def pick(ship: str | None = None, **changes: Any) -> Chosen:
    return choose(variants(**changes), SLOW, NONE, LOCAL, ship=ship)


def test_the_guard_refuses_what_is_slower_and_gives_the_causes() -> None:
    chosen = pick(causes=["2 of 3 layers run in float", "10 % of the time goes into conversions", "a third"])
    assert chosen.name == "baseline"
    assert not chosen.forced
    assert chosen.why.endswith(
        "int8 is not surely faster than baseline (0.80 times as fast, interval 0.78 to 0.82) "
        "because 2 of 3 layers run in float, and 10 % of the time goes into conversions"
    )


def test_a_named_variant_is_chosen_and_what_the_rules_say_is_kept() -> None:
    chosen = pick("int8")
    assert (chosen.name, chosen.forced) == ("int8", True)
    assert chosen.why.startswith(
        "forced with --ship; the rules choose baseline: the baseline stays: int8 is not surely"
    )


def test_naming_what_the_rules_choose_anyway_says_that_they_agree() -> None:
    assert pick("baseline").why.startswith("named with --ship, and the rules choose it too")


def test_a_name_that_no_variant_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'int8'"):
        pick("int9")


def test_the_worst_rival_is_the_one_that_is_named() -> None:
    baseline, int8 = variants()
    pruned = baseline.model_copy(update={"name": "pruned"})
    chosen = choose(
        [baseline, pruned, int8], {**SLOW, "baseline": {**SLOW["baseline"], "pruned": [2.0, 1.9, 2.1]}}, NONE, LOCAL
    )
    assert "int8 is not surely faster than pruned (0.40" in chosen.why


def test_the_verdict_of_a_forced_variant_says_so_and_calls_slower_slower() -> None:
    baseline, int8 = variants(speedup=Ratio(value=0.8, ci95=(0.78, 0.82)))
    sentence = conclude(int8, baseline, {}, LOCAL, forced=True).sentence
    assert sentence.startswith("forced with --ship: int8 is 1.25 times slower than the baseline (1.22 to 1.28)")


def test_a_forced_baseline_is_not_said_to_be_all_that_was_left() -> None:
    baseline, _ = variants()
    assert conclude(baseline, baseline, {}, LOCAL, forced=True).sentence.startswith(
        "the baseline was named with --ship"
    )


def test_explanations_divergences_and_bad_parity_become_warnings() -> None:
    facts = {
        "explanation": "INT8 is not faster than pruned because of this",
        "parity": {"argmax_agreement": 0.5, "ok": False},
        "divergence": {"sentence": "it diverges first at stem"},
        "layers_missing": "the runtime crashed",
    }
    found = reasons_in(facts)
    assert found[0] == "INT8 is not faster than pruned because of this"
    assert "it does not answer as torch does: 50.0 % of the answers agree" in found
    assert "it diverges first at stem" in found
    assert "the time of its layers was not measured: the runtime crashed" in found
