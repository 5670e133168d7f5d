"""Where the time goes, layer by layer, before and after: drawn, and as tables."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...targets.durations import duration
from . import words
from .canvas import COLOURS, axes, svg
from .elements import Markup, details, element, figure, section, table
from .pieces import missing, name, place
from .rows import chosen
from .schema import LayerTime, Report, Variant, Where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 14  # bars in one drawing; the rest is one bar
NAME_WIDTH = 24  # letters

# What a bar's colour says; a conversion is one in whatever precision it leaves behind.
KINDS = {"float": "muted", "16 bits": "s1", "INT8": "good", "conversion": "bad"}


def section_of(report: Report, where: Where) -> Markup:
    """The section of the page."""
    title = "Time by layer"
    known = [(index, variant) for index, variant in enumerate(report.variants) if variant.layers]
    if not known:
        return section("layers", title, missing("The time of single layers"), *_float_layers(report))
    latency = known[0][1].latency_ms
    by = (
        "TensorRT's profiler" if latency and latency.runtime == "tensorrt" else "the runtime's own counters, one thread"
    )
    note = (
        f"By {by}, apart from the comparison of latencies: counting slows layers down, and what is short is counted "
        "roughly, so that shares tell more than sums. "
        "Conversions are what the runtime puts between layers of different precision or memory layout."
    )
    return section(
        "layers",
        title,
        place(report, where),
        _drawings(report),
        element("p", *_key(), class_="note"),
        table("layer-shares", "Where the time of one inference goes", HEAD, _lines(report, known), words=1),
        element("p", note, class_="note"),
        *_float_layers(report),
        *(_all_layers(variant) for _, variant in known),
    )


FLOAT_HEAD = ("Layer", "Loss when it alone is INT8", "Signal to noise, dB", "Time that INT8 saves there")


def quantization(report: Report) -> list[str]:
    """What the quantize stage decided, in sentences: whether it trained, and what went back to float."""
    found = _quantize_metrics(report)
    told = [f"Not trained with the rounding in place: {why}" if (why := found.get("training_skipped")) else ""]
    if told[0] and (seconds := found.get("training_seconds_saved")) is not None:
        told[0] += f"; that saved about {duration(seconds)}"
    if found.get("fallback"):
        told.append(str(found["fallback"]["sentence"]))
    return [text[0].upper() + text[1:] + "." for text in told if text]


def float_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Layers that went back to float to meet the budget of accuracy, in the order in which they did."""
    layers = (_quantize_metrics(report).get("fallback") or {}).get("float_layers", [])
    return [
        (
            layer["layer"],
            words.number(layer["loss"]),
            words.number(layer["sqnr_db"]),
            words.NOT_MEASURED if layer["gain_ms"] is None else f"{words.number(layer['gain_ms'])} ms",
        )
        for layer in layers
    ]


def _quantize_metrics(report: Report) -> Mapping[str, Any]:
    return next((stage.metrics for stage in report.stages if stage.name == "quantize" and not stage.skipped), {})


def _float_layers(report: Report) -> list[Markup]:
    parts = [element("p", text) for text in quantization(report)]
    rows = float_rows(report)
    if rows:
        caption = "Layers that went back to float, the first first"
        parts.append(table("float-layers", caption, FLOAT_HEAD, rows, words=1))
    return parts


HEAD = ("Variant", "Layers, ms", "In INT8", "Weighted layers in float", "Conversions", "Costliest layer")


def top_rows(variant: Variant, count: int) -> list[tuple[str, str, str, str, str]]:
    """The costliest layers in words, for the renderings without a drawing."""
    known = variant.layers.layers if variant.layers else []
    return [
        (layer.layer, layer.type, layer.precision, _time(layer.ms), f"{100 * layer.share:.0f} %")
        for layer in known[:count]
    ]


def kind(layer: LayerTime) -> str:
    """What the colour of a layer's bar says."""
    if layer.role == "conversion":
        return "conversion"
    return {"int8": "INT8", "bf16": "16 bits", "fp16": "16 bits"}.get(layer.precision, "float")


def _drawings(report: Report) -> Markup:
    """The baseline beside the chosen variant, on one scale."""
    pair = [report.variants[0]]
    after = chosen(report)
    if after is not None and after is not pair[0]:
        pair.append(after)
    drawn = [variant for variant in pair if variant.layers and variant.layers.total_ms > 0]
    if not drawn:
        return missing("The time of the baseline's layers")
    bars = [_bars(variant) for variant in drawn]
    widest = max(ms for rows in bars for _, ms, _ in rows)
    titles = ("Before", "After")
    shown = [
        figure(_draw(variant, rows, widest=widest), "", title=f"{title}: {variant.name}")
        for title, variant, rows in zip(titles, drawn, bars, strict=False)
    ]
    return element("div", *shown, class_="grid two")


def _bars(variant: Variant) -> list[tuple[str, float, str]]:
    """Name, milliseconds and kind of each bar, the costliest first; the cheap ones in one."""
    assert variant.layers is not None
    layers = [layer for layer in variant.layers.layers if layer.ms > 0]
    rows = [(layer.layer, layer.ms, kind(layer)) for layer in layers[:SHOWN]]
    if len(layers) > SHOWN:
        rows.append((f"{len(layers) - SHOWN} others", sum(layer.ms for layer in layers[SHOWN:]), "float"))
    return rows


def _draw(variant: Variant, rows: Sequence[tuple[str, float, str]], *, widest: float) -> Markup:
    drawing: Axes = axes(480, 44 + 23 * len(rows), left=168, right=56, top=6, bottom=36)
    drawing.grid(visible=True, axis="x")
    for place_, (_, ms, what) in enumerate(rows):
        drawing.barh(place_, ms, height=0.62, color=COLOURS[KINDS[what]], alpha=0.85)
        drawing.text(ms + 0.012 * widest, place_, words.number(ms), va="center", fontsize=11)
    drawing.set_yticks(range(len(rows)), [_short(label) for label, *_ in rows])
    drawing.tick_params(axis="y", labelcolor=COLOURS["ink"])
    drawing.set_ylim(len(rows) - 0.5, -0.5)
    drawing.set_xlim(0, 1.02 * widest)
    drawing.set_xlabel("ms of one inference")
    drawing.locator_params(axis="x", nbins=5)
    said = "; ".join(f"{label} {words.number(ms)} ms in {what}" for label, ms, what in rows[:5])
    return svg(drawing, key=f"layers-{variant.name}", label=f"Costliest layers of {variant.name}: {said}.")


def _key() -> list[Markup]:
    texts = {
        "float": "computed in float",
        "16 bits": "in bfloat16 or float16",
        "INT8": "in INT8",
        "conversion": "conversion between precisions or layouts",
    }
    return [
        element("span", element("span", class_=f"swatch {KINDS[what]}", aria_hidden="true"), text, class_="key")
        for what, text in texts.items()
    ]


def _lines(report: Report, known: Sequence[tuple[int, Variant]]) -> list[tuple[str, ...]]:
    return [
        (name(index, variant.name, is_chosen=variant.name == report.chosen.name), *_shares(variant))
        for index, variant in known
    ]


def _shares(variant: Variant) -> tuple[str, ...]:
    known = variant.layers
    assert known is not None
    weighted = [layer for layer in known.layers if layer.role == "weighted"]
    in_float = [layer for layer in weighted if kind(layer) == "float"]
    first = known.layers[0] if known.layers else None
    return (
        words.number(known.total_ms),
        f"{100 * known.int8_share:.0f} %",
        f"{len(in_float)} of {len(weighted)}",
        f"{100 * known.conversion_share:.0f} %",
        f"{first.layer}, {100 * first.share:.0f} %" if first else "below a microsecond",
    )


def _all_layers(variant: Variant) -> Markup:
    assert variant.layers is not None
    head = ("Layer", "Type", "Precision", "Time", "Share")
    body = table(
        f"layers-of-{variant.name}", f"Layers of {variant.name}, the costliest first", head,
        top_rows(variant, len(variant.layers.layers)), words=3,
    )  # fmt: skip
    return details(f"Every layer of {variant.name}", body)


def _time(ms: float) -> str:
    return f"{words.number(ms)} ms" if ms > 0 else "below 0.001 ms"


def _short(text: str) -> str:
    return text if len(text) <= NAME_WIDTH else f"…{text[-NAME_WIDTH + 1 :]}"
