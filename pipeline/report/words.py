"""How figures and their intervals are written: the same in the terminal, in Markdown and in HTML."""

import math

from .schema import AGREEMENT, Accuracy, Interval, Latency, Limit, Parity, Ratio, Report, Where

NOT_MEASURED = "not measured"
KIB, MIB = 1024, 1024 * 1024

# name of a limit -> what is limited, at least or at most, unit
LIMITS = {
    "latency_ms": ("median latency", "at most", " ms"),
    "speedup": ("times faster", "at least", "×"),
    "accuracy": ("accuracy", "at least", " %"),
    "accuracy_drop": ("points of accuracy lost", "at most", ""),
    "memory_mb": ("peak memory", "at most", " MiB"),
    "size_mb": ("file size", "at most", " MiB"),
}


def number(value: float, decimals: int | None = None) -> str:
    """Three significant digits without an exponent, or as many decimals as asked, and a true minus sign."""
    if decimals is None:
        decimals = decimals_of(value)
    text = f"{value:.{decimals}f}"
    if not text.strip("-0."):
        text = text.removeprefix("-")  # -0.0 is an artefact of rounding
    return text.replace("-", "−")


def signed(value: float, decimals: int) -> str:
    """With a plus as well: for a change."""
    text = number(value, decimals)
    return text if text.startswith("−") or not text.strip("0.") else f"+{text}"


def decimals_of(value: float, *, width: float = math.inf) -> int:
    """Decimals that show three digits of the value, or four where an interval is so narrow of that width."""
    if value == 0 or not math.isfinite(value):
        return 0
    of_value = max(0, 2 - math.floor(math.log10(abs(value))))
    if width <= 0:
        return of_value
    of_width = math.ceil(-math.log10(width)) if math.isfinite(width) else 0
    return min(max(of_value, of_width), of_value + 1)


def with_interval(value: float, ci95: Interval, *, unit: str = "") -> str:
    """`0.412 ms (0.409–0.415)`."""
    decimals = decimals_of(value, width=ci95[1] - ci95[0])
    return f"{number(value, decimals)}{unit} ({span(ci95, decimals)})"


def span(ci95: Interval, decimals: int, *, dash: str = "–") -> str:
    return f"{number(ci95[0], decimals)}{dash}{number(ci95[1], decimals)}"


def latency(figure: Latency | None) -> str:
    return NOT_MEASURED if figure is None else with_interval(figure.median, figure.ci95)


def ratio(figure: Ratio | None) -> str:
    return NOT_MEASURED if figure is None else with_interval(figure.value, figure.ci95, unit="×")


def accuracy(figure: Accuracy | None) -> str:
    """`98.2 % ±0.6`: half the width of the interval, which is all but symmetric."""
    if figure is None:
        return NOT_MEASURED
    decimals = _accuracy_decimals(figure)
    half_width = (figure.ci95[1] - figure.ci95[0]) / 2
    return f"{number(figure.value, decimals)} % ±{number(half_width, decimals)}"


def metric(report: Report, *, title: bool = False) -> str:
    """What judges the answers: `accuracy`, `mIoU`. title: at the start of a line."""
    name = report.data.metric if report.data else "accuracy"
    return name if not title or name[1:2].isupper() else name[:1].upper() + name[1:]


def label(report: Report) -> str:
    """The same in full: `agreement with the given model on images that were made`."""
    made = report.synthesis
    is_agreement = made is not None and made.evaluated_on is None
    return f"{AGREEMENT} with the given model on {made.kind}" if made and is_agreement else metric(report)


def judged_on(report: Report, count: int, *, word: str = "on") -> str:
    """What follows the metric: `on 449 test images`, or with another word for `on`."""
    made = report.synthesis
    if made is None or made.evaluated_on is not None:
        return f"{word} {count} test {samples(report)}"
    return f"with the given model on {count} {made.kind}"


def inputs(report: Report) -> str:
    """What went into the models while they were measured."""
    made = report.synthesis
    return "real samples" if made is None or made.evaluated_on is not None else made.kind


def samples(report: Report) -> str:
    """What was counted: `images`, `texts`."""
    return report.data.samples if report.data else "images"


def change(figure: Accuracy | None) -> str:
    """Points of accuracy against the baseline: `−0.3 (−0.9 to +0.2)`."""
    if figure is None or figure.drop is None:
        return NOT_MEASURED
    decimals = _accuracy_decimals(figure)
    text = signed(-figure.drop, decimals)
    if figure.drop_ci95 is None:
        return text
    low, high = figure.drop_ci95
    return f"{text} ({signed(-high, decimals)} to {signed(-low, decimals)})"


def p_value(value: float) -> str:
    """`= 0.03`, or `< 0.001` where more digits would say nothing."""
    return "< 0.001" if value < 0.001 else f"= {number(value, 3 if value < 0.01 else 2)}"


def parity(figure: Parity | None) -> str:
    if figure is None:
        return NOT_MEASURED
    # rounded down: 99.96 % is not all of them
    agreement = math.floor(figure.argmax_agreement * 1000 + 1e-9) / 10
    return f"{'agrees' if figure.ok else 'differs'} {number(agreement, 0 if agreement == 100 else 1)} %"


def mib(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{number(value)} MiB"


def size(size_bytes: float) -> str:
    return f"{number(size_bytes / KIB)} KiB" if size_bytes < MIB else mib(size_bytes / MIB)


def count(value: int | None) -> str:
    """`1.23 M`; None was not counted."""
    if value is None:
        return "not counted"
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= factor:
            return f"{number(value / factor)} {letter}"
    return str(value)


def state(met: bool | None) -> str:
    """In a sign and a word, so that neither colour nor font is needed to read it."""
    return {True: "✓ met", False: "✗ missed", None: "? not known"}[met]


def limit(name: str, facts: Limit, *, metric: str = "accuracy") -> tuple[str, str, str]:
    """What is limited, the limit, and what was measured: `("file size", "at most 2 MiB", "1.24 MiB")`."""
    what, side, unit = LIMITS.get(name, (name.replace("_", " "), "limit", ""))
    what = what.replace("accuracy", metric)
    value = NOT_MEASURED if facts.value is None else f"{_beside(facts.value, facts.limit)}{unit}"
    return what, f"{side} {facts.limit:g}{unit}", value


def _beside(value: float, limit: float) -> str:
    """Rounded, with as many digits as it takes not to look equal to a limit that it misses."""
    decimals = decimals_of(value)
    while decimals < 9 and value != limit and float(f"{value:.{decimals}f}") == limit:
        decimals += 1
    return number(value, decimals)


def board(report: Report) -> str:
    return str(report.profile.get("board") or report.profile.get("name") or "device")


def ground(where: Where, report: Report) -> str:
    """Where figures come from, as a heading says it."""
    return {
        "device": _device_ground(report),
        "stand-in": f"Stand-in: measured on this machine, not on the {board(report)}",
        "estimated": "Estimated, not measured",
    }[where]


def _device_ground(report: Report) -> str:
    device = str(report.profile.get("device"))
    if device.startswith("ssh://"):
        return f"Measured on the device, {device}"
    return "Measured on the device, by the bundle" if device == "carried" else "Measured on this device"


def way_there(report: Report) -> str:
    """How figures of the device itself are had, if a bundle was written."""
    return f" To measure it there, take the folder {report.bundle} to it and start run.sh." if report.bundle else ""


def plus_minus(value: float, ci95: Interval, *, unit: str = "") -> str:
    """`0.412 ±0.003`, where width is short: the longer side of the interval."""
    decimals = decimals_of(value, width=ci95[1] - ci95[0])
    return f"{number(value, decimals)}{unit} ±{number(max(value - ci95[0], ci95[1] - value), decimals)}"


def _accuracy_decimals(figure: Accuracy) -> int:
    return 1 if figure.n < 2000 else 2  # one image is 0.05 points or more below that
