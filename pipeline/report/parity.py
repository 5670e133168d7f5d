"""Whether each file answers as the network in torch does, and where a wrong one goes wrong."""

from . import words
from .elements import Markup, details, element, facts, join, section, table
from .schema import Divergence, Report, Variant

METRIC = 6  # the column that names it
HEAD = (
    "Variant",
    "ONNX file against torch",
    "Engine against torch",
    "Signal to noise",
    "Largest difference",
    "Samples",
    "Accuracy in torch",
    "In the runtime",
    "INT8",
)


def section_of(report: Report) -> Markup:
    """The section of the page."""
    head = [f"{words.metric(report, title=True)} in torch" if at == METRIC else title for at, title in enumerate(HEAD)]
    body = table(
        "parity", f"Torch, the exported file and the engine, on the same {words.inputs(report)}", head,
        [_line(variant) for variant in report.variants],
    )  # fmt: skip
    note = (
        "Per cent of the samples that get the same answer. A quantised variant is compared with its simulation in "
        "torch, and the ONNX file runs in ONNX Runtime. Signal to noise is that of the engine's answers: 30 dB is an "
        "error of 3 %."
    )
    wrong = [_divergence(variant.name, variant.divergence) for variant in report.variants if variant.divergence]
    inside = [
        details(f"What ran in INT8: {variant.name}", facts(variant.int8)) for variant in report.variants if variant.int8
    ]
    return section("parity", "Parity", body, element("p", note, class_="note"), *wrong, *inside)


def _line(variant: Variant) -> tuple[str, ...]:
    figure = variant.parity
    worst = noise = count = words.NOT_MEASURED
    if figure is not None:
        worst = "not finite" if figure.max_abs_diff is None else f"{figure.max_abs_diff:.2g}"
        noise = words.NOT_MEASURED if figure.sqnr_db is None else f"{words.number(figure.sqnr_db, 1)} dB"
        count = str(figure.n)
    torch = words.NOT_MEASURED if variant.torch_accuracy is None else f"{words.number(variant.torch_accuracy, 1)} %"
    return (
        variant.name,
        "the same file"
        if variant.exported_parity is None and variant.twin_of
        else words.parity(variant.exported_parity),
        words.parity(figure),
        noise,
        worst,
        count,
        torch,
        words.accuracy(variant.accuracy),
        _int8(variant),
    )


def _int8(variant: Variant) -> str:
    if variant.int8 is None:
        return "not quantised"
    ran, of = variant.int8.get("int8_layers"), variant.int8.get("weighted_layers")
    return "see below" if ran is None or of is None else f"{ran} of {of} layers"


def _divergence(name: str, found: Divergence) -> Markup:
    lines = [
        (point.layer, point.tensor, *(_db(value) for value in (point.sqnr_db, point.lost_db))) for point in found.points
    ]
    head = ("Layer", "Tensor", "Signal to noise", "Lost there")
    marked = next((at for at, point in enumerate(found.points) if point.tensor == found.tensor), None)
    body = table(f"divergence-{name}", f"{name} against its float twin, in the order of computation",
                 head, lines, words=2, marked=marked)  # fmt: skip
    sentence = element("p", element("strong", name), f": {found.sentence}")
    return join(element("h3", f"Where {name} goes wrong"), sentence, details("Every compared tensor", body))


def _db(value: float | None) -> str:
    return words.NOT_MEASURED if value is None else f"{words.number(value, 1)} dB"
