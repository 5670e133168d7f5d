"""Which variant to ship, and whether the budget is met: decided by figures alone, and said in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..targets.profiles import Budget, Profile
from .report.schema import Chosen, Limit, Variant, Verdict

Ratios = Mapping[str, Mapping[str, Sequence[float]]]
MIB = 2**20


def choose(variants: Sequence[Variant], ratios: Ratios, budget: Budget, profile: Profile) -> Chosen:
    """The fastest variant that is accurate enough on the validation images and surely faster than its float twins.

    Accuracy is judged on the validation images, so that the reported test images choose nothing. Nothing is chosen
    by stand-in latencies: on a device that was not reached, it is the version that went through every stage.
    """
    baseline, candidates = variants[0], list(variants[1:])
    if not candidates:
        return Chosen(name=baseline.name, why="no stage made another version of the model")
    if profile.where == "stand-in":
        return _choose_unmeasured(baseline, candidates, budget, profile)
    reasons: dict[str, str] = {}
    for candidate in candidates:
        reason = _inaccurate(candidate, baseline, budget) or _not_faster(candidate, variants, ratios)
        if reason:
            reasons[candidate.name] = reason
    fit = [candidate for candidate in candidates if candidate.name not in reasons and candidate.latency_ms]
    if not fit:
        why = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
        return Chosen(name=baseline.name, why=f"the baseline stays: {why}")
    best = min(fit, key=lambda candidate: candidate.latency_ms.median if candidate.latency_ms else float("inf"))
    refused = [f"{name} {reason}" for name, reason in reasons.items()]
    tail = f" (refused: {'; '.join(refused)})" if refused else ""
    return Chosen(name=best.name, why=f"the fastest variant that is accurate enough on the validation images{tail}")


def _choose_unmeasured(baseline: Variant, candidates: Sequence[Variant], budget: Budget, profile: Profile) -> Chosen:
    last = candidates[-1]
    reason = _inaccurate(last, baseline, budget)
    if reason:
        return Chosen(name=baseline.name, why=f"the baseline stays: {last.name} {reason}")
    return Chosen(
        name=last.name,
        why=f"it went through every stage; its speed on {profile.board} is not measured, build it there to know",
    )


def _inaccurate(candidate: Variant, baseline: Variant, budget: Budget) -> str | None:
    if candidate.val_accuracy is None or baseline.val_accuracy is None:
        return None
    if budget.accuracy is not None and candidate.val_accuracy < budget.accuracy:
        return f"has {candidate.val_accuracy:.2f} % on the validation images, below {budget.accuracy:g} %"
    drop = baseline.val_accuracy - candidate.val_accuracy
    if budget.accuracy_drop is not None and drop > budget.accuracy_drop:
        return f"loses {drop:.2f} points on the validation images, more than {budget.accuracy_drop:g}"
    return None


def _not_faster(candidate: Variant, variants: Sequence[Variant], ratios: Ratios) -> str | None:
    """The never-slower guard: against the baseline and, for INT8, against every float version of the model."""
    if candidate.latency_ms is None:
        return "was not measured: " + ("; ".join(candidate.warnings) or "no figure came back")
    rivals = [variants[0]]
    if candidate.precision == "int8":
        rivals = [variant for variant in variants if variant.precision != "int8"]
    for rival in rivals:
        found = ratios.get(rival.name, {}).get(candidate.name)
        if found is not None and found[1] <= 1.0:
            value, low, high = found
            return (
                f"is not surely faster than {rival.name} ({value:.2f} times as fast, interval {low:.2f} to {high:.2f})"
            )
    return None


def judge(chosen: Variant, budget: Budget, profile: Profile) -> dict[str, Limit]:
    """Each limit against the chosen variant. Met only where the whole interval of a timing lies within."""
    return {name: _judge_one(name, limit, chosen, profile) for name, limit in budget.limits().items()}


def _judge_one(name: str, limit: float, chosen: Variant, profile: Profile) -> Limit:
    value, worst, unit = _figure(name, chosen)
    if profile.where == "stand-in" and name != "size_mb":
        return Limit(limit=limit, value=None, met=None, why=f"not measured on {profile.board}")
    if value is None or worst is None:
        return Limit(limit=limit, value=None, met=None, why="not measured")
    at_least = name in ("speedup", "accuracy")
    met = worst >= limit if at_least else worst <= limit
    words = f"{value:.3g}{unit} against {'at least' if at_least else 'at most'} {limit:g}{unit}"
    if not met and (value >= limit if at_least else value <= limit):
        words += f", but the interval reaches {worst:.3g}{unit}"
    return Limit(limit=limit, value=value, met=met, why=words)


def _figure(name: str, chosen: Variant) -> tuple[float | None, float | None, str]:
    """The value, the end of its interval that counts against the budget, and the unit."""
    if name == "latency_ms" and chosen.latency_ms:
        return chosen.latency_ms.median, chosen.latency_ms.ci95[1], " ms"
    if name == "speedup" and chosen.speedup:
        return chosen.speedup.value, chosen.speedup.ci95[0], " times"
    if name == "accuracy" and chosen.accuracy:
        return chosen.accuracy.value, chosen.accuracy.value, " %"
    if name == "accuracy_drop" and chosen.accuracy:
        drop = chosen.accuracy.drop or 0.0
        return drop, drop, " points"
    if name == "memory_mb" and chosen.memory_mb:
        return chosen.memory_mb.peak_rss, chosen.memory_mb.peak_rss, " MiB"
    if name == "size_mb":
        return chosen.size_bytes / MIB, chosen.size_bytes / MIB, " MiB"
    return None, None, ""


def conclude(chosen: Variant, baseline: Variant, limits: Mapping[str, Limit], profile: Profile) -> Verdict:
    """The run in one sentence."""
    missed = [name for name, limit in limits.items() if limit.met is False]
    unknown = [name for name, limit in limits.items() if limit.met is None]
    met = False if missed else None if unknown else True
    parts = [_speed_words(chosen, baseline, profile), _accuracy_words(chosen, baseline, profile)]
    if missed:
        parts.append("budget missed: " + "; ".join(f"{name} {limits[name].why}" for name in missed))
    elif unknown:
        parts.append("whether the budget is met is not known: " + ", ".join(unknown) + " not measured on the device")
    elif limits:
        parts.append("the budget is met")
    return Verdict(sentence="; ".join(part for part in parts if part) + ".", met=met)


def _speed_words(chosen: Variant, baseline: Variant, profile: Profile) -> str:
    smaller = baseline.size_bytes / chosen.size_bytes
    if chosen.name == baseline.name:
        return "nothing that was tried is faster and accurate enough, so the baseline stays"
    if profile.where == "stand-in":
        ready = f"{chosen.name} is ready for {profile.board}, {smaller:.1f} times smaller"
        return f"{ready}; its speed there is not measured"
    if chosen.speedup is None:
        return f"{chosen.name} is {smaller:.1f} times smaller; its speed is not measured"
    low, high = chosen.speedup.ci95
    return (
        f"{chosen.name} is {chosen.speedup.value:.2f} times faster than the baseline ({low:.2f} to {high:.2f}) "
        f"and {smaller:.1f} times smaller"
    )


def _accuracy_words(chosen: Variant, baseline: Variant, profile: Profile) -> str:
    if chosen.accuracy is None or chosen.name == baseline.name:
        return ""
    where = " on the stand-in" if profile.where == "stand-in" else ""
    words = f"accuracy{where} {chosen.accuracy.value:.2f} % (n = {chosen.accuracy.n})"
    if chosen.accuracy.drop is not None and chosen.accuracy.drop_ci95 is not None:
        low, high = chosen.accuracy.drop_ci95
        kind = "below" if chosen.accuracy.drop >= 0 else "above"
        words += f", {abs(chosen.accuracy.drop):.2f} points {kind} the baseline (drop {low:+.2f} to {high:+.2f})"
    return words


def reasons_in(facts: Mapping[str, Any]) -> list[str]:
    """What went wrong with one engine, in words."""
    warnings = []
    if facts.get("failed"):
        warnings.append(str(facts["failed"]))
    int8 = facts.get("int8")
    if int8 and int8["weighted_layers"] > int8["int8_layers"]:
        warnings.append(f"only {int8['int8_layers']} of {int8['weighted_layers']} layers run in INT8")
    parity, simulated, real = facts.get("parity"), facts.get("torch_accuracy"), facts.get("accuracy")
    if parity and real and simulated is not None and abs(simulated - real["value"]) > 1.0:
        warnings.append(f"torch says {simulated:.2f} % and the runtime {real['value']:.2f} %")
    return warnings
