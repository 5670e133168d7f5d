"""How a plot becomes a piece of the page: drawn by matplotlib, coloured by the page's style sheet."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from .elements import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = 8  # colours for variants; a ninth starts again at the second, the first is the baseline's

# Colours that nothing else uses stand for the style sheet's variables and are replaced by them in the SVG,
# so that one drawing reads well on light, dark and paper.
NAMES = ("ink", "muted", "rule", "paper", "good", "bad", "accent", *(f"s{index}" for index in range(SERIES)))
COLOURS = {name: f"#{0x10FE02 + 0x100 * index:06x}" for index, name in enumerate(NAMES)}

SETTINGS: dict[str, object] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, scaled and read aloud
    "text.parse_math": False,  # a dollar in a variant's name is a dollar
    "font.size": 11.5,
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "figure.dpi": 72,  # one unit of the drawing is one pixel of the page
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.8,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["rule"],
    "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's own defaults and ours on top, whatever the user's matplotlibrc says; undone afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        # the browser has the glyphs that matplotlib's font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)  # type: ignore[arg-type]
        yield


def axes(width: int, height: int, *, left: int = 52, right: int = 14, top: int = 14, bottom: int = 42) -> "Axes":
    """Axes in a drawing of that many pixels, with those margins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))
    return figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )


def series(index: int) -> str:
    """The colour of the variant at that place of the list."""
    return COLOURS[series_name(index)]


def series_name(index: int) -> str:
    return f"s{index if index < SERIES else 1 + (index - SERIES) % (SERIES - 1)}"


def svg(drawing: "Axes", *, key: str, label: str) -> Markup:
    """The drawing as an <svg> element. key: unique on the page; label: what a screen reader says."""
    from io import StringIO

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = StringIO()
    # the salt makes the ids of clip paths and markers unique on the page, and equal from run to run
    with mpl.rc_context({"svg.hashsalt": key}):
        figure: Any = drawing.figure  # its type allows a part of a figure, which axes() never makes
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(text, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(text.getvalue(), label=label)


def ticks_of_log(low: float, high: float) -> Sequence[float]:
    """Round numbers between two positive ends, few enough to be labelled."""
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1,)):
        found = [step * 10.0**power for power in range(-6, 7) for step in steps if low <= step * 10.0**power <= high]
        if len(found) <= 8:
            return found
    return found[:: len(found) // 8 + 1]


def _inline(text: str, *, label: str) -> Markup:
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style type=\"text/css\">.*?</style>", "", body, flags=re.DOTALL)  # would style the whole page
    body = re.sub(r"<!--.*?-->\n?", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', body))
    # the others are the same in every drawing, and would not be unique on the page
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", body)
    # the page's font instead of matplotlib's; the shorthand is that of matplotlib 3.9
    body = re.sub(r"font-family: [^;\"]*; ?", "", body)
    body = re.sub(r"font: (?:(\w+) )?([\d.]+)px [^;\"]*", _font, body)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    assert box is not None, "matplotlib writes a viewBox"
    width, height = float(box[1]), float(box[2])
    start = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" '
        f'role="img" aria-label="{escape(label)}">'
    )
    return Markup(start + body[body.index(">") + 1 :].strip())


def _font(match: "re.Match[str]") -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px"
