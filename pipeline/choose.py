"""Which variant to ship, and whether the budget is met: decided by figures alone, and said in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..targets.errors import RecipeError, did_you_mean
from ..targets.profiles import Budget, Profile
from .report.schema import Chosen, Limit, Variant, Verdict

Ratios = Mapping[str, Mapping[str, Sequence[float]]]
MIB = 2**20
BASELINE = "baseline"  # what every report calls the model as it was given
TIMED = ("latency_ms", "speedup")  # limits on what was timed
RANK = {True: 0, None: 1, False: 2}  # of verdicts on one limit, the worst last
CAUSES = 2  # of a slow variant in the sentence that refuses it; all of them stand in its warnings


def choose(
    variants: Sequence[Variant],
    ratios: Ratios,
    budget: Budget,
    profile: Profile,
    *,
    ship: str | None = None,
    doubt: str | None = None,
    samples: str = "images",
    elsewhere: Mapping[str, Ratios] | None = None,
) -> Chosen:
    """The fastest variant that is accurate enough on the validation samples and surely faster than its float twins.

    Accuracy is judged on the validation samples, so that the reported test samples choose nothing. Nothing is chosen
    by stand-in latencies: on a device that was not reached, it is the version that went through every stage.

    ship: a variant that the user named: it is chosen whatever the rules say, and `why` says what they would have.
    doubt: why nothing may be chosen by these figures. elsewhere: ratios on further boards, where it must be surely
    faster too. RecipeError: there is no such variant.
    """
    if ship is not None:
        free = choose(variants, ratios, budget, profile, doubt=doubt, samples=samples, elsewhere=elsewhere)
        return _force(ship, variants, free)
    baseline, candidates = variants[0], list(variants[1:])
    if not candidates:
        return Chosen(name=baseline.name, why="no stage made another version of the model")
    if profile.where == "stand-in":
        return _choose_unmeasured(baseline, candidates, budget, profile, samples)
    if doubt:
        return Chosen(name=baseline.name, why=f"the baseline stays: the measurement is {doubt}")
    reasons: dict[str, _Reason] = {}
    for candidate in candidates:
        reason = (
            _inaccurate(candidate, baseline, budget, samples)
            or _not_faster(candidate, variants, ratios)
            or _slow_elsewhere(candidate, variants, elsewhere or {})
        )
        if reason:
            reasons[candidate.name] = reason
    fit = [candidate for candidate in candidates if candidate.name not in reasons and candidate.latency_ms]
    refused = "; ".join(_listed(reasons))
    if not fit:
        return Chosen(name=baseline.name, why=f"the baseline stays: {refused}")
    best = min(fit, key=lambda candidate: candidate.latency_ms.median if candidate.latency_ms else float("inf"))
    tail = f" (refused: {refused})" if refused else ""
    return Chosen(name=best.name, why=f"the fastest variant that is accurate enough on the validation {samples}{tail}")


def _force(ship: str, variants: Sequence[Variant], free: Chosen) -> Chosen:
    names = [variant.name for variant in variants]
    if ship not in names:
        raise RecipeError(
            f"--ship {ship}: no such variant{did_you_mean(ship, names)}. "
            "Run the same command with another name: finished stages are reused."
        )
    if ship == free.name:
        return Chosen(name=ship, why=f"named with --ship, and the rules choose it too: {free.why}", forced=True)
    return Chosen(name=ship, why=f"forced with --ship; the rules choose {free.name}: {free.why}", forced=True)


def _choose_unmeasured(
    baseline: Variant, candidates: Sequence[Variant], budget: Budget, profile: Profile, samples: str
) -> Chosen:
    last = candidates[-1]
    reason = _inaccurate(last, baseline, budget, samples)
    if reason:
        return Chosen(name=baseline.name, why=f"the baseline stays: {last.name} {reason.says}")
    return Chosen(
        name=last.name,
        why=f"it went through every stage; its speed on {profile.board} is not measured, build it there to know",
    )


class _Reason(NamedTuple):
    """Why a variant is refused, in words that follow its name. all, amount: the same for several, and of this one."""

    says: str
    all: str | None = None
    amount: str = ""


def _listed(reasons: Mapping[str, _Reason]) -> list[str]:
    """Every variant with its reason; where several share it, that is said once."""
    alike: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        alike.setdefault(reason.all or name, []).append(name)
    return [
        f"{shared}: {', '.join(f'{name} {reasons[name].amount}' for name in names)}"
        if len(names) > 1
        else f"{names[0]} {reasons[names[0]].says}"
        for shared, names in alike.items()
    ]


def _inaccurate(candidate: Variant, baseline: Variant, budget: Budget, samples: str) -> _Reason | None:
    if candidate.val_accuracy is None or baseline.val_accuracy is None:
        return None
    if budget.accuracy is not None and candidate.val_accuracy < budget.accuracy:
        return _Reason(
            says=f"has {candidate.val_accuracy:.2f} % on the validation {samples}, below {budget.accuracy:g} %",
            all=f"these have less than {budget.accuracy:g} % on the validation {samples}",
            amount=f"{candidate.val_accuracy:.2f}",
        )
    drop = baseline.val_accuracy - candidate.val_accuracy
    if budget.accuracy_drop is not None and drop > budget.accuracy_drop:
        return _Reason(
            says=f"loses {drop:.2f} points on the validation {samples}, more than {budget.accuracy_drop:g}",
            all=f"these lose more points on the validation {samples} than {budget.accuracy_drop:g}",
            amount=f"{drop:.2f}",
        )
    return None


def _not_faster(candidate: Variant, variants: Sequence[Variant], ratios: Ratios) -> _Reason | None:
    """The never-slower guard: against the baseline and, for INT8, against every float version of the model."""
    if candidate.latency_ms is None:
        return _Reason("was not measured: " + ("; ".join(candidate.warnings) or "no figure came back"))
    rivals = [variants[0], *(_float_twins(candidate, variants) if candidate.precision == "int8" else ())]
    found = {rival.name: ratios.get(rival.name, {}).get(candidate.name) for rival in rivals}
    slower = {name: ratio for name, ratio in found.items() if ratio is not None and ratio[1] <= 1.0}
    if not slower:
        return None
    name = min(slower, key=lambda rival: slower[rival][0])
    value, low, high = slower[name]
    because = f" because {', and '.join(candidate.causes[:CAUSES])}" if candidate.causes else ""
    return _Reason(
        f"is not surely faster than {name} ({value:.2f} times as fast, interval {low:.2f} to {high:.2f}){because}"
    )


def _slow_elsewhere(candidate: Variant, variants: Sequence[Variant], elsewhere: Mapping[str, Ratios]) -> _Reason | None:
    for board, ratios in elsewhere.items():
        if candidate.name not in ratios.get(variants[0].name, {}):
            return _Reason(f"was not timed on {board}")
        reason = _not_faster(candidate, variants, ratios)
        if reason:
            return _Reason(f"{reason.says} on {board}")
    return None


def doubt_of(incomplete: str | None, unreliable: str | None, profile: Profile) -> str | None:
    """Why nothing may be chosen or judged by these timings; None where they hold, and where they never count."""
    if incomplete:
        return f"incomplete: {incomplete}"
    return f"unreliable: {unreliable}" if unreliable and profile.where == "device" else None


def _float_twins(candidate: Variant, variants: Sequence[Variant]) -> list[Variant]:
    """The same network in every float precision; the baseline's too, which ships at no cost in accuracy."""
    names = [variant.name for variant in variants if variant.precision != "int8" and variant.twin_of is None]
    before = {variant.name: place for place, variant in enumerate(variants)}
    earlier = [name for name in names if before[name] < before[candidate.name]]
    network = candidate.twin_of or earlier[-1]
    same = {network, variants[0].name}
    return [variant for variant in variants if variant.precision != "int8" and same & {variant.name, variant.twin_of}]


def judge(
    chosen: Variant,
    budget: Budget,
    profile: Profile,
    *,
    doubt: str | None = None,
    elsewhere: Mapping[str, Variant] | None = None,
) -> dict[str, Limit]:
    """Each limit against the chosen variant. Met only where the whole interval of a timing lies within; accuracy counts
    by its value, and where its interval goes beyond the limit that is said.

    doubt: why no timing can be judged. elsewhere: its figures on further boards, where every limit holds too.
    """
    found = {name: _judge_one(name, limit, chosen, profile) for name, limit in budget.limits().items()}
    for board, variant in (elsewhere or {}).items():
        for name, limit in budget.limits().items():
            there = _judge_one(name, limit, variant, profile)
            if RANK[there.met] > RANK[found[name].met]:
                found[name] = there.model_copy(update={"why": f"{there.why} on {board}"})
    for name in TIMED:
        if doubt and name in found and found[name].value is not None:
            found[name] = found[name].model_copy(update={"met": None, "why": doubt})
    return found


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
    beyond = _beyond(name, limit, chosen)
    if met and beyond is not None:
        words += f", and the interval reaches {beyond:.3g}{unit}"
    return Limit(limit=limit, value=value, met=met, why=words)


def _beyond(name: str, limit: float, chosen: Variant) -> float | None:
    """How far the interval of an accuracy goes beyond its limit; None: not at all."""
    found = chosen.accuracy
    if found is not None and name == "accuracy" and found.ci95[0] < limit:
        return found.ci95[0]
    if found is not None and name == "accuracy_drop" and found.drop_ci95 is not None and found.drop_ci95[1] > limit:
        return found.drop_ci95[1]
    return None


def _figure(name: str, chosen: Variant) -> tuple[float | None, float | None, str]:
    """The value, the end of its interval that counts against the budget, and the unit."""
    if name == "latency_ms" and chosen.latency_ms:
        return chosen.latency_ms.median, chosen.latency_ms.ci95[1], " ms"
    if name == "speedup" and chosen.speedup:
        return chosen.speedup.value, chosen.speedup.ci95[0], " times"
    if name == "speedup" and chosen.name == BASELINE and chosen.latency_ms:
        return 1.0, 1.0, " times"  # what stays as it was is as fast as it was
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


def conclude(
    chosen: Variant,
    baseline: Variant,
    limits: Mapping[str, Limit],
    profile: Profile,
    *,
    forced: bool = False,
    doubt: str | None = None,
    agreement: str | None = None,
    pruning: str | None = None,
) -> Verdict:
    """The run in one sentence. forced: the user named the variant. doubt: why there is nothing to conclude.

    agreement: what stands for accuracy where there were no data to tell it, in full. pruning: what is to be known of
    how the network was pruned to the budget.
    """
    if doubt:
        return _doubtful(doubt, chosen, limits)
    missed = [name for name, limit in limits.items() if limit.met is False]
    unknown = [name for name, limit in limits.items() if limit.met is None]
    met = False if missed else None if unknown else True
    speed = _speed_words(chosen, baseline, profile)
    if forced:
        speed = "the baseline was named with --ship" if chosen is baseline else f"forced with --ship: {speed}"
    parts = [speed, _accuracy_words(chosen, baseline, profile, agreement)]
    if missed:
        parts.append("budget missed: " + "; ".join(f"{name} {limits[name].why}" for name in missed))
    elif unknown:
        parts.append("whether the budget is met is not known: " + ", ".join(unknown) + " not measured on the device")
    elif limits:
        unsure = [name for name, limit in limits.items() if _beyond(name, limit.limit, chosen) is not None]
        but = f", though the interval of {' and '.join(unsure)} goes beyond it" if unsure else ""
        parts.append(f"the budget is met{but}")
    if pruning:
        parts.append(pruning)
    judged = [name for name in ("accuracy", "accuracy_drop") if name in limits]
    if agreement and judged:
        parts.append(f"{' and '.join(judged)} was judged by {agreement}: accuracy cannot be known without data")
    return Verdict(sentence="; ".join(part for part in parts if part) + ".", met=met)


def _doubtful(doubt: str, chosen: Variant, limits: Mapping[str, Limit]) -> Verdict:
    missed = [name for name, limit in limits.items() if limit.met is False]
    sentence = f"{doubt[0].upper()}{doubt[1:]}; no claim about speed can be made, and {chosen.name} stands without one"
    if missed:
        sentence += "; budget missed: " + "; ".join(f"{name} {limits[name].why}" for name in missed)
    elif limits:
        sentence += "; whether the budget is met is not known"
    return Verdict(sentence=f"{sentence}.", met=False if missed else None)


def _speed_words(chosen: Variant, baseline: Variant, profile: Profile) -> str:
    smaller = _smaller_words(baseline.size_bytes / chosen.size_bytes)
    if chosen.name == baseline.name:
        return "Nothing that was tried is faster and accurate enough, so the baseline stays"
    if profile.where == "stand-in":
        ready = f"{chosen.name} is ready for {profile.board}, {smaller}"
        return f"{ready}; its speed there is not measured"
    if chosen.speedup is None:
        return f"{chosen.name} is {smaller}; its speed is not measured"
    low, high = chosen.speedup.ci95
    if high < 1.0:
        slower = f"{1 / chosen.speedup.value:.2f} times slower than the baseline ({1 / high:.2f} to {1 / low:.2f})"
        return f"{chosen.name} is {slower} and {smaller}"
    return (
        f"{chosen.name} is {chosen.speedup.value:.2f} times faster than the baseline ({low:.2f} to {high:.2f}) "
        f"and {smaller}"
    )


def _smaller_words(times: float) -> str:
    if 0.95 < times < 1.05:
        return "of the same size"
    return f"{times:.1f} times smaller" if times > 1 else f"{1 / times:.1f} times larger"


def _accuracy_words(chosen: Variant, baseline: Variant, profile: Profile, agreement: str | None) -> str:
    if chosen.accuracy is None or chosen.name == baseline.name:
        return ""
    where = " on the stand-in" if profile.where == "stand-in" else ""
    words = f"{agreement or chosen.accuracy.metric}{where} {chosen.accuracy.value:.2f} % (n = {chosen.accuracy.n})"
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
    if facts.get("explanation"):
        warnings.append(str(facts["explanation"]))
    parity, simulated, real = facts.get("parity"), facts.get("torch_accuracy"), facts.get("accuracy")
    if parity and real and simulated is not None and abs(simulated - real["value"]) > 1.0:
        warnings.append(f"torch says {simulated:.2f} % and the runtime {real['value']:.2f} %")
    if parity and not parity.get("ok", True):
        agreement = 100 * parity["argmax_agreement"]
        noise = f", signal to noise {parity['sqnr_db']:.0f} dB" if parity.get("sqnr_db") is not None else ""
        warnings.append(f"it does not answer as torch does: {agreement:.1f} % of the answers agree{noise}")
    if facts.get("divergence"):
        warnings.append(str(facts["divergence"]["sentence"]))
    if facts.get("layers_missing"):
        warnings.append(f"the time of its layers was not measured: {facts['layers_missing']}")
    return warnings
