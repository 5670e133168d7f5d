"""Does a report agree with itself? Every figure is derived again from the samples beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from ..targets import statistics
from ..targets.errors import EdgepressError
from ..targets.profiles import Budget, Profile
from .choose import choose, doubt_of, judge
from .report import schema
from .report.schema import Report, Variant

# Samples are stored to a hundredth of a microsecond, the figures were derived before that rounding.
ROUNDING_MS = 2e-5
CLOSE = 1e-3
INTERVAL_CLOSE = 5e-3  # a resampled median may fall on the neighbouring sample
# More than a run makes, and what would fill the memory of whoever resamples it.
MOST_ROUNDS, MOST_SAMPLES, MOST_IMAGES = 20_000, 5_000_000, 10**9
SHARES = ("accuracy", schema.AGREEMENT)  # figures that count answers


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at. ok: None where it could not be checked; text: what was seen."""

    name: str
    ok: bool | None
    text: str


def check_figures(report: Report) -> Iterator[Check]:
    """Latencies, ratios, accuracies, budget and choice, each against what it is derived from."""
    names = [variant.name for variant in report.variants]
    if not names or len(set(names)) < len(names):
        yield Check(name="variants", ok=False, text="there is none, or two have one name")
        return
    yield from _figures(report.variants)
    for board in report.boards:
        there = [variant.name for variant in board.variants]
        if there[:1] != names[:1] or len(set(there)) < len(there):
            yield Check(
                name=f"variants on {board.device:.100}", ok=False, text="the baseline is not first, or one twice"
            )
            return
        yield from _figures(board.variants, where=f" on {board.device:.100}")
    yield _choice(report)


def _figures(variants: Sequence[Variant], *, where: str = "") -> Iterator[Check]:
    timed = _timed(variants)
    for variant in variants:
        problems = [
            *_latency_problems("latency", variant.latency_ms),
            *_latency_problems("latency on all cores", variant.all_cores_ms),
            *_accuracy_problems(variant, variants[0]),
            *_speedup_problems(variant, timed[variants[0].name], timed[variant.name]),
            *_layer_problems(variant),
        ]
        text = "; ".join(problems) or "every figure follows from the samples"
        yield Check(name=f"figures of {variant.name}{where}", ok=not problems, text=text)


def _timed(variants: Sequence[Variant]) -> dict[str, statistics.Latency | None]:
    return {variant.name: _latency(variant.latency_ms) for variant in variants}


def _latency(figure: schema.Latency | None) -> statistics.Latency | None:
    """The samples again; None where there are none that a clock could have given."""
    if figure is None or _sample_problem(figure) is not None:
        return None
    return statistics.Latency(
        samples_ms=tuple(tuple(visit) for visit in figure.samples), rounds_by_load=tuple(figure.rounds_by_load),
        threads=figure.threads,
    )  # fmt: skip


def _sample_problem(figure: schema.Latency) -> str | None:
    count = sum(map(len, figure.samples))
    if not count or not all(figure.samples):
        return "there are no samples, or a round without any"
    if len(figure.samples) > MOST_ROUNDS or count > MOST_SAMPLES:
        return f"{count} samples in {len(figure.samples)} rounds are more than a run takes"
    if figure.rounds_by_load and (min(figure.rounds_by_load) < 1 or sum(figure.rounds_by_load) != len(figure.samples)):
        return f"loads with {figure.rounds_by_load} rounds are not the {len(figure.samples)} rounds that there are"
    if not all(0 < sample < 1e9 for visit in figure.samples for sample in visit):
        return "some samples are no durations"
    return None


def _latency_problems(what: str, figure: schema.Latency | None) -> list[str]:
    if figure is None:
        return []
    problem = _sample_problem(figure)
    found = _latency(figure)
    if found is None:
        return [f"{what}: {problem}"]
    derived = {
        "median": (figure.median, found.median_ms),
        "p90": (figure.p90, found.percentile_ms(0.90)),
        "p99": (figure.p99, found.percentile_ms(0.99)),
        "mean": (figure.mean, found.mean_ms),
        "minimum": (figure.minimum, found.minimum_ms),
    }
    problems = [
        f"{what}: {name} is {told:.6g} ms and follows as {value:.6g} ms"
        for name, (told, value) in derived.items()
        if not _close(told, value, CLOSE)
    ]
    low, high = found.median_ci95_ms
    if not (_close(figure.ci95[0], low, INTERVAL_CLOSE) and _close(figure.ci95[1], high, INTERVAL_CLOSE)):
        told = f"{figure.ci95[0]:.6g} to {figure.ci95[1]:.6g}"
        problems.append(f"{what}: the interval of the median is {told} and follows as {low:.6g} to {high:.6g}")
    return problems


def _accuracy_problems(variant: Variant, baseline: Variant) -> list[str]:
    told = variant.accuracy
    if told is None:
        return []
    problems = _share_problems(told) if told.metric in SHARES else _figure_problems(told)
    if problems:
        return problems
    if told.drop is not None and baseline.accuracy is not None:
        drop = baseline.accuracy.value - told.value
        if not math.isclose(told.drop, drop, abs_tol=1e-6):
            problems.append(f"accuracy: the drop is {told.drop:.4f} and follows as {drop:.4f}")
    return problems


def _share_problems(told: schema.Accuracy) -> list[str]:
    """Of answers that are right or wrong."""
    if not 1 <= told.n <= MOST_IMAGES or not 0 <= told.value <= 100:
        return [f"accuracy: {told.value:.6g} % of {str(told.n)[:30]} images is no share"]
    right = round(told.value * told.n / 100)
    if not math.isclose(100 * right / told.n, told.value, abs_tol=1e-6):
        return [f"accuracy: {told.value:.6g} % is no whole number of {told.n} images"]
    low, high = statistics.wilson(right, told.n)
    if math.isclose(told.ci95[0], low, abs_tol=1e-3) and math.isclose(told.ci95[1], high, abs_tol=1e-3):
        return []
    return [f"accuracy: the interval follows as {low:.2f} to {high:.2f}"]


def _figure_problems(told: schema.Accuracy) -> list[str]:
    """Of any other figure: its samples are not in the report, so that it cannot be derived again."""
    if not 1 <= told.n <= MOST_IMAGES or told.value > 100 + 1e-9:
        return [f"{told.metric:.30}: {told.value:.6g} % of {str(told.n)[:30]} samples is no figure of a task"]
    return [] if told.ci95[0] <= told.ci95[1] else [f"{told.metric:.30}: the interval ends before it begins"]


def _speedup_problems(variant: Variant, before: statistics.Latency | None, now: statistics.Latency | None) -> list[str]:
    told = variant.speedup
    if told is None:
        return []
    if before is None or now is None:
        return ["speed-up: the samples that it was derived from are not there"]
    found = statistics.ratio(before, now)
    pairs = ((told.value, found.value), (told.ci95[0], found.low), (told.ci95[1], found.high))
    if all(math.isclose(a, b, rel_tol=INTERVAL_CLOSE) for a, b in pairs):
        return []
    seen = f"{told.value:.4g} ({told.ci95[0]:.4g} to {told.ci95[1]:.4g})"
    return [f"speed-up: is {seen} and follows as {found.value:.4g} ({found.low:.4g} to {found.high:.4g})"]


def _layer_problems(variant: Variant) -> list[str]:
    told = variant.layers
    if told is None or not told.total_ms:
        return []
    total = math.fsum(layer.ms for layer in told.layers)
    shares = math.fsum(layer.share for layer in told.layers)
    if math.isclose(total, told.total_ms, rel_tol=CLOSE) and math.isclose(shares, 1.0, rel_tol=CLOSE):
        return []
    return [f"layers: they take {total:.4g} ms together, and {told.total_ms:.4g} ms are said"]


def _choice(report: Report) -> Check:
    """The same rules again, on the same figures."""
    name = "choice and budget"
    try:
        profile = Profile.model_validate(report.profile)
        budget = Budget.model_validate({limit: facts.limit for limit, facts in report.budget.items()})
    except ValidationError as error:
        return Check(name=name, ok=False, text=f"the profile or the budget does not hold: {error.errors()[0]['msg']}")
    ratios = _ratios(report.variants)
    slower = {board.device: _ratios(board.variants) for board in report.boards}
    ship = report.chosen.name if report.chosen.forced else None
    try:
        doubt = doubt_of(report.incomplete, report.verdict.unreliable, profile)
        chosen = choose(report.variants, ratios, budget, profile, ship=ship, doubt=doubt, elsewhere=slower)
    except EdgepressError as error:
        return Check(name=name, ok=False, text=str(error))
    if chosen.name != report.chosen.name:
        return Check(
            name=name, ok=False, text=f"{report.chosen.name} is said to be chosen, the rules choose {chosen.name}"
        )
    variant = next(one for one in report.variants if one.name == chosen.name)
    there = {board.device: one for board in report.boards for one in board.variants if one.name == chosen.name}
    limits = judge(variant, budget, profile, doubt=doubt, elsewhere=there)
    wrong = [limit for limit, facts in limits.items() if facts.met != report.budget[limit].met]
    if wrong:
        return Check(name=name, ok=False, text=f"met or not follows otherwise for {', '.join(wrong)}")
    forced = " (forced with --ship)" if report.chosen.forced else ""
    return Check(name=name, ok=True, text=f"{chosen.name} follows from the figures{forced}")


def _ratios(variants: Sequence[Variant]) -> dict[str, dict[str, Sequence[float]]]:
    timed = _timed(variants)
    ratios: dict[str, dict[str, Sequence[float]]] = {}
    for slow, before in timed.items():
        for fast, now in timed.items():
            if slow != fast and before is not None and now is not None:
                found = statistics.ratio(before, now)
                ratios.setdefault(slow, {})[fast] = (found.value, found.low, found.high)
    return ratios


def _close(told: float, value: float, share: float) -> bool:
    return math.isclose(told, value, rel_tol=share, abs_tol=ROUNDING_MS)
